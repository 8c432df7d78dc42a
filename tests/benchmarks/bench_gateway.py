"""What the gateway costs: requests/s, tokens/s and the first token, through it and past it.

The replica is the echo engine under plain uvicorn, in a process; the gateway is another one; the
clients are here, and read no more of the answers than they must. Both ways are taken in turns.
What one would write instead, thirty lines of Starlette and aiohttp without keys, limits, counts or
shares, is a third way: it is compared by the CPU time of its process, which load beside it does
not change.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

import psutil
import uvloop

from tests.benchmarks.table import Row, compare

Measure = Callable[[str], Coroutine[None, None, float]]

CLIENTS = 16
SECONDS = 2.0
ROUNDS = 5
WORD = "a" * 16
TEXT = "a" * 256
REQUEST = {"model": "echo", "prompt": WORD, "max_tokens": 16}
STREAM = {"model": "echo", "prompt": TEXT, "max_tokens": 256, "stream": True}


def rows() -> list[Row]:
    """Ask both ways in turns, and take the medians."""
    with (
        _replica(0.0) as fast,
        _replica(0.01) as slow,
        _gateway(fast) as near,
        _gateway(slow) as before_slow,
    ):
        requests = _rounds(_requests, near, fast)
        tokens = _rounds(_tokens, near, fast)
        paced = _rounds(_paced, before_slow, slow)
        first = _rounds(_first, before_slow, slow)
        with _process("tests.benchmarks.plain_proxy", fast) as plain:
            cost = _costs(near, plain)
    added = 1e3 * (first[0] - first[1])
    return [
        compare(
            "requests/s of 16 clients, 16 tokens each, through the gateway and past it",
            *requests,
            unit="1/s",
            goal="ratio >= 0.7",
        ),
        compare(
            "tokens/s of 16 streams, as fast as the echo engine writes",
            *tokens,
            unit="tokens/s",
            goal="-",
        ),
        compare(
            "tokens/s of 16 streams, a token each 10 ms",
            *paced,
            unit="tokens/s",
            goal="ratio >= 0.97",
        ),
        Row(
            name="first token of a stream later by the gateway",
            ours=added,
            unit="ms",
            goal="ours <= 3",
        ),
        compare(
            "CPU of a whole answer: the gateway against thirty lines of starlette and aiohttp",
            *cost[0],
            unit="us",
            goal="ratio < 1",
        ),
        compare(
            "CPU of a token of a stream: the same two",
            *cost[1],
            unit="us",
            goal="ratio < 1",
        ),
    ]


def _costs(ours: str, plain: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return what an answer and a token cost each process, in microseconds: medians."""
    rounds = [
        [(_cost(url, _answers), _cost(url, _tokens_sent)) for url in (ours, plain)]
        for _ in range(ROUNDS)
    ]
    own, theirs = zip(*rounds, strict=True)
    (a, b), (c, d) = (map(median, zip(*side, strict=True)) for side in (own, theirs))
    return (a, c), (b, d)


def _cost(url: str, work: Measure) -> float:
    process = _listening(url)
    before = sum(process.cpu_times()[:2])
    number = uvloop.run(work(url))
    return 1e6 * (sum(process.cpu_times()[:2]) - before) / number


async def _answers(url: str) -> float:
    return await _requests(url) * SECONDS


async def _tokens_sent(url: str, streams: int = 12, length: int = 256) -> float:
    await _tokens(url, streams, length)
    return CLIENTS * streams * length


def _listening(url: str) -> psutil.Process:
    """Return the child of this process that listens at `url`."""
    port = int(url.rsplit(":", 1)[1])
    for child in psutil.Process().children():
        if any(c.laddr.port == port and not c.raddr for c in child.net_connections("tcp")):
            return child
    raise RuntimeError(f"nobody listens at {url}")


def _rounds(measure: Measure, ours: str, theirs: str) -> tuple[float, float]:
    pairs = [(uvloop.run(measure(ours)), uvloop.run(measure(theirs))) for _ in range(ROUNDS)]
    own, bare = zip(*pairs, strict=True)
    return median(own), median(bare)


async def _requests(url: str) -> float:
    done = 0
    until = perf_counter() + SECONDS

    async def client() -> None:
        nonlocal done
        connection = await _Connection.to(url, REQUEST)
        while perf_counter() < until:
            await connection.whole()
            done += 1
        connection.close()

    began = perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return done / (perf_counter() - began)


async def _tokens(url: str, streams: int = 6, length: int = 256) -> float:
    body = {**STREAM, "prompt": "a" * length}

    async def client() -> None:
        connection = await _Connection.to(url, body)
        for _ in range(streams):
            await connection.stream()
        connection.close()

    began = perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return CLIENTS * streams * length / (perf_counter() - began)


async def _paced(url: str) -> float:
    return await _tokens(url, streams=1, length=150)


async def _first(url: str, times: int = 40) -> float:
    """Return the median time to the first token, in seconds; four clients at once."""
    firsts: list[float] = []

    async def client() -> None:
        connection = await _Connection.to(url, {**STREAM, "prompt": "abc"})
        firsts.extend([await connection.stream() for _ in range(times)])
        connection.close()

    await asyncio.gather(*(client() for _ in range(4)))
    return median(firsts)


class _Connection:
    """A client that costs next to nothing: one request, written again and again."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> None:
        self._reader, self._writer, self._request = reader, writer, request

    @classmethod
    async def to(cls, url: str, body: object) -> _Connection:
        host, port = url.removeprefix("http://").split(":")
        text = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\n\r\n"
        return cls(
            *await asyncio.open_connection(host, int(port), limit=1 << 22), head.encode() + text
        )

    async def whole(self) -> None:
        """Ask, and read an answer of known length."""
        self._writer.write(self._request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(head.decode())
        await self._reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))

    async def stream(self) -> float:
        """Ask, and read a stream to its end; return when its first event came, in seconds."""
        began = perf_counter()
        self._writer.write(self._request)
        await self._reader.readuntil(b"data: ")
        first = perf_counter() - began
        await self._reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n")
        return first

    def close(self) -> None:
        """Close it."""
        self._writer.close()


@contextmanager
def _replica(delay: float) -> Iterator[str]:
    with _process("tests.serving.echo_process", str(delay)) as url:
        yield url


@contextmanager
def _gateway(url: str) -> Iterator[str]:
    with _process("tests.serving.process", url, "{}") as address:
        yield address


@contextmanager
def _process(*command: str) -> Iterator[str]:
    argv = [sys.executable, "-m", *command]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as started:
        if started.stdout is None:
            raise RuntimeError("no output")
        try:
            yield started.stdout.readline().strip()
        finally:
            started.terminate()
