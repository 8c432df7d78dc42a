"""An echoing replica under uvicorn: `python -m tests.serving.echo_process DELAY [HOST [PORT]]`."""

from __future__ import annotations

import socket
import sys

import uvicorn

from orchestrator.adapters.clock import SystemClock
from orchestrator.serving.replica.app import replica
from tests.serving.http_server import echo_engine


def main(delay: str, host: str = "127.0.0.1", port: str = "0") -> None:
    """Serve on that port, or a free one, and print the address."""
    app = replica(echo_engine(delay=float(delay)), "echo", SystemClock())
    config = uvicorn.Config(app, log_level="critical", access_log=False)
    listener = socket.create_server((host, int(port)), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
