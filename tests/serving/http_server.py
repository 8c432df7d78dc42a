"""An ASGI application under uvicorn in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1_700_000_000.5

    def sleep(self, seconds: float) -> None:
        pass


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve `app` on a free port; give its base URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    sockets = [config.bind_socket()]
    thread = threading.Thread(target=server.run, args=(sockets,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sockets[0].close()
