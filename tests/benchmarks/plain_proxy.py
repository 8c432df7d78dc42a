"""What one would write instead of the gateway: `python -m tests.benchmarks.plain_proxy URL`."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


def main(url: str) -> None:
    """Serve on a free port, and print the address."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            app.state.session = session
            yield

    async def forward(request: Request) -> StreamingResponse:
        session: aiohttp.ClientSession = request.app.state.session
        answer = await session.post(url + request.url.path, data=await request.body())
        kept = ("content-type", "content-length")
        headers = {name: answer.headers[name] for name in kept if name in answer.headers}
        return StreamingResponse(answer.content.iter_any(), answer.status, headers)

    app = Starlette(routes=[Route("/{path:path}", forward, methods=["POST"])], lifespan=lifespan)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, loop="uvloop", log_level="critical", access_log=False)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
