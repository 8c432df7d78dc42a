"""Seeded requests that no server should answer by anything but 4xx."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from random import Random

PATHS = ("/v1/completions", "/v1/chat/completions", "/echo/v1/completions", "/echo/v1/predict")
GOOD = {"model": "echo", "prompt": "a", "messages": [{"role": "user", "content": "a"}]}
FIELDS = ("n", "max_tokens", "top_p", "temperature", "seed", "stop", "stream", "stream_options")
WRONG = {
    "n": (0, -1, 10**6, "1", 1.5, [], True, {}),
    "max_tokens": (0, -1, 10**9, 10**400, "5", 2.5, True, []),
    "top_p": (0, -1, 1.1, "1", [], 10**30),
    "temperature": (-0.1, 2.1, "1", [], {}, 10**9),
    "seed": (2**63, -(2**64), 1.5, "1", []),
    "stop": ("", ["a"] * 5, [1], {}, 7),
    "stream": ("yes", 1, [], {}),
    "stream_options": (1, [], "a", {"include_usage": 3}),
}
Make = Callable[[Random], bytes]


def request(body: bytes, path: str = "/v1/completions", head: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n%b\r\n"
        % (path.encode(), len(body), head)
    ) + body


def wrong_field(rng: Random) -> bytes:
    name = rng.choice(FIELDS)
    body = {**GOOD, name: rng.choice(WRONG[name])}
    return request(json.dumps(body).encode(), rng.choice(PATHS[:3]))


def wrong_prompt(rng: Random) -> bytes:
    path = rng.choice(PATHS[:3])
    name = "messages" if "chat" in path else "prompt"
    values = (None, [], {}, -1, 0.5, [None], [-1], [1, "a"], [{"role": "king"}], True, "\ud800")
    return request(json.dumps({**GOOD, name: rng.choice(values)}).encode(), path)


def torn(rng: Random) -> bytes:
    body = json.dumps(GOOD).encode()
    return request(body[: rng.randrange(len(body))], rng.choice(PATHS))


def noise(rng: Random) -> bytes:
    return request(b"\xff" + rng.randbytes(rng.randrange(2000)), rng.choice(PATHS))


def deep(rng: Random) -> bytes:
    depth = rng.randrange(70, 5000)
    mark = rng.choice((b"[", b'{"a":'))
    close = b"]" if mark == b"[" else b"}"
    body = b'{"model":"echo","prompt":"a","x":' + mark * depth + b"1" + close * depth + b"}"
    return request(body, rng.choice(PATHS[::2]))


def long(rng: Random) -> bytes:
    return request(b'{"model":"echo","prompt":"' + b"a" * rng.randrange(70_000, 90_000) + b'"}')


def announced(rng: Random) -> bytes:
    return request(b"").replace(b"length: 0", b"length: 104857600")


def beyond_context(rng: Random) -> bytes:
    return request(json.dumps({**GOOD, "prompt": "a" * rng.randrange(5000, 20_000)}).encode())


def unknown(rng: Random) -> bytes:
    name = "".join(rng.choices("abcdefgh/é", k=rng.randrange(1, 40)))
    return request(json.dumps({**GOOD, "model": name}).encode(), rng.choice(PATHS[:3]))


def lost_path(rng: Random) -> bytes:
    path = "/" + "".join(rng.choices("abc/%20.v1-", k=rng.randrange(1, 60)))
    return request(b"{}", path.replace("v1/completions", "x"))


def no_http(rng: Random) -> bytes:
    return rng.choice(
        (
            b"GARBAGE\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"GET  HTTP/1.1\r\n\r\n",
            b"POST /\xff HTTP/1.1\r\n\r\n",
            b"POST /v1/completions HTTP/1.1\r\nbad header\r\n\r\n",
            rng.randbytes(200) + b"\r\n\r\n",
        )
    )


def headers(rng: Random) -> bytes:
    return request(b"{}", head=b"x-%d: y\r\n" % rng.randrange(10) * 12_000)


KINDS: tuple[Make, ...] = (
    wrong_field, wrong_field, wrong_prompt, wrong_prompt, torn, noise, deep, long, announced,
    beyond_context, unknown, lost_path, no_http, headers,
)  # fmt: skip


def ask(address: tuple[str, int], data: bytes) -> tuple[int, bytes]:
    """Send bytes, half-close, and return status and body of the answer; 0 without any."""
    with socket.create_connection(address, timeout=15) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was whole
            connection.sendall(data)
        return parse(_all(connection))


def _all(connection: socket.socket) -> bytes:
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
            head, mark, body = found.partition(b"\r\n\r\n")
            if mark and len(body) >= _length(head):
                break
    except ConnectionResetError:
        pass
    return found


def parse(answer: bytes) -> tuple[int, bytes]:
    """Return status and body of an answer; 0 where there is none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]), body) if head.startswith(b"HTTP/") else (0, answer)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 1 << 60
