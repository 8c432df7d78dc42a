"""What one would write instead of the gateway: `... plain_proxy URL PORT`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


def main(url: str, port: str) -> None:
    """Serve until a signal ends the process."""

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
    uvicorn.run(app, port=int(port), loop="uvloop", log_level="critical", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
