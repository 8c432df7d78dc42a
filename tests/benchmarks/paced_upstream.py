"""A server that answers chats as vLLM writes them: `... paced_upstream PORT`.

It costs next to nothing, so what is measured is what stands before it. The last message of a chat
says how fast a stream comes: `0.002 8` has a write of eight tokens, an event each, every 2 ms.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop

NAMED = b'"created":1,"model":"echo","choices":[{"index":0,'
EVENT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk",' + NAMED
TOKEN = EVENT + b'"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
LAST = EVENT + b'"delta":{"content":""},"logprobs":null,"finish_reason":"stop"}]}\n\n'
USAGE = b'"usage":{"prompt_tokens":16,"total_tokens":%d,"completion_tokens":%d}}'
END = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"echo",'
END += b'"choices":[],' + USAGE + b"\n\ndata: [DONE]\n\n"
WHOLE = b'{"id":"chatcmpl-1","object":"chat.completion",' + NAMED
WHOLE += b'"message":{"role":"assistant","content":"%b"},"logprobs":null,"finish_reason":"stop"}],'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: "
STREAM = HEAD + b"text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection, one request at a time."""

    _transport: asyncio.WriteTransport
    _received = b""

    def connection_made(self, transport: asyncio.WriteTransport) -> None:
        """Keep what answers are written to."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the request is whole."""
        self._received += data
        head, mark, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if mark and len(body) >= int(length or 0):
            self._received = b""
            self._answer(json.loads(body or b"{}"))

    def _answer(self, asked: dict[str, Any]) -> None:
        tokens = asked.get("max_tokens", 0)  # a proxy may ask for other things than chats
        if asked.get("stream"):
            seconds, events = asked["messages"][-1]["content"].split()
            self._transport.write(STREAM)
            self._write(tokens, tokens, float(seconds), int(events))
            return
        text = WHOLE % (b" word" * tokens) + USAGE % (16 + tokens, tokens)
        typed = HEAD + b"application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
        self._transport.write(typed + text)

    def _write(self, left: int, tokens: int, seconds: float, events: int) -> None:
        if self._transport.is_closing():
            return
        number = min(left, events)
        part, end = TOKEN * number, b""
        if left == number:
            part, end = part + LAST + END % (16 + tokens, tokens), b"0\r\n\r\n"
        self._transport.write(b"%x\r\n%b\r\n%b" % (len(part), part, end))
        if left > number:
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, self._write, left - number, tokens, seconds, events)


async def serve(port: int) -> None:
    """Serve until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
