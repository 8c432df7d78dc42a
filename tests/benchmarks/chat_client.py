"""A client of chats that costs next to nothing: one request, written again and again."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter
from typing import Self

PATH = "/v1/chat/completions"
ASKED = {"model": "echo", "messages": [{"role": "user", "content": "a few words, please"}]}


class Chat:
    """A connection, as a block; `body` is what a request has beside its model."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def __init__(self, port: int, key: str, body: dict[str, object]) -> None:
        text = json.dumps({**ASKED, **body}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
        self._port = port
        self._request = head.encode() + text
        self._streams = "stream" in body

    async def __aenter__(self) -> Self:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, limit=1 << 22
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        self._writer.close()

    async def ask(self) -> float:
        """Ask, and read the answer to its end; return when it began to come, in seconds.

        Raises:
            OSError: It is not answered with 200.
        """
        began = perf_counter()
        self._writer.write(self._request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise OSError(head.decode())
        if self._streams:
            await self._reader.readuntil(b"data: ")
            first = perf_counter() - began
            await self._reader.readuntil(b"\r\n0\r\n\r\n")
            return first
        length = head.partition(b"content-length: ")[2].split(b"\r\n")[0]
        await self._reader.readexactly(int(length))
        return perf_counter() - began
