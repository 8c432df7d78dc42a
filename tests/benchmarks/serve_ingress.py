"""Ray Serve's own ingress instead of the gateway: `... serve_ingress URL PORT`.

A deployment hands requests on with aiohttp, and streams what comes; Serve's proxy is before it.
Ray is started for it, and ends with this process.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from types import FrameType

import aiohttp
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse


@serve.deployment(max_ongoing_requests=1000)
class Forward:
    """Asks the server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, request: Request) -> StreamingResponse:
        """Hand a request on."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = await request.body()
        answer = await self._session.post(self._url + request.url.path, data=body)
        kept = ("content-type", "content-length")
        headers = {name: answer.headers[name] for name in kept if name in answer.headers}
        return StreamingResponse(answer.content.iter_any(), answer.status, headers)


def main(url: str, port: str) -> None:
    """Serve until a signal ends the process."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        ray.init(
            "local",
            num_cpus=4,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=folder,
        )
        try:
            signal.signal(signal.SIGTERM, _end)
            serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
            serve.run(Forward.bind(url), route_prefix="/")  # type: ignore[attr-defined]
            signal.pause()
        finally:
            ray.shutdown()


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit


if __name__ == "__main__":
    main(*sys.argv[1:])
