"""Connections to replicas: each client gets the bytes of its own answer, whatever others do."""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TypeVar

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from orchestrator.serving.gateway.outside_connections import proxy_of
from orchestrator.serving.gateway.routes import Far
from orchestrator.serving.gateway.upstream import (
    Broken,
    Exhausted,
    Later,
    Sent,
    Unreachable,
    Upstream,
    _head,
    _request,
    address_of,
)
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.serving.scripted import WHOLE

Kind = TypeVar("Kind")
LIMITS = GatewayLimits(connect_seconds=1.0)
NONE: Sent = []
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SIZES = {b"30": 3_000}  # so that an answer of thirty parts is more than is buffered


@dataclass
class Plain:
    """A server that answers `/NAME/PARTS/FRAMING` by as many parts of `NAME`."""

    url: str = ""
    connections: int = 0
    stray: bytes = b""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                name, parts, framing = head.split(b" ")[1][1:].split(b"/")
                await self._answer(writer, name * 7 * SIZES.get(parts, 1), int(parts), framing)
                if framing == b"close":
                    break
        writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, part: bytes, parts: int, framing: bytes
    ) -> None:
        if framing == b"length":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(part) * parts))
        else:
            close = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
            writer.write(close if framing == b"close" else STREAM)
        chunked = framing.startswith(b"chunked")
        for _ in range(parts):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if framing == b"chunked-slow":
                await asyncio.sleep(0)
        if chunked:
            writer.write(b"0\r\n\r\n")
        if self.stray:
            asyncio.get_running_loop().call_soon(
                asyncio.get_running_loop().call_soon, writer.write, self.stray
            )


def run(work: Coroutine[None, None, Kind]) -> Kind:
    async def whole() -> Kind:
        try:
            return await work
        finally:
            await asyncio.sleep(0.02)  # the loop closes what was closed

    return asyncio.run(whole())


@asynccontextmanager
async def plain_server(stray: bytes = b"") -> AsyncIterator[Plain]:
    plain = Plain(stray=stray)
    server = await asyncio.start_server(plain.serve, "127.0.0.1", 0)
    plain.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield plain
    for writer in plain.writers:
        writer.close()
    await asyncio.sleep(0.01)  # the loop closes them


async def ask(
    upstream: Upstream, url: str, path: str, reads: int = 1 << 30, headers: Sent = NONE
) -> bytes:
    """Return the body, or what is read of it; `reads` below 0 has it handed over to the end."""
    body = b""

    def take(part: bytes) -> Later | None:
        nonlocal body
        body += part
        return partial(asyncio.sleep, 0) if len(body) % 2 else None

    async with upstream.exchange(address_of(url, path), headers, b"") as exchange:
        if reads < 0:
            await exchange.each(take)
        for _ in range(reads):
            if not (part := await exchange.read()):
                break
            body += part
    return body


FRAMINGS = ("length", "chunked", "chunked-slow", "close")
LEAVING = st.fixed_dictionaries(
    {
        "framing": st.sampled_from(FRAMINGS),
        "parts": st.sampled_from([0, 1, 3, 20, 30]),
        "turns": st.integers(0, 24),  # of the loop until it is cancelled
        "reads": st.integers(-1, 3),
        "together": st.booleans(),  # whether the next one begins before it has left
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LEAVING, min_size=1, max_size=12))
def test_each_client_gets_its_own_bytes_whenever_others_leave(leaving: list[dict]) -> None:
    async def play() -> None:
        async with plain_server() as plain:
            upstream = Upstream(LIMITS)
            tasks = []
            for number, how in enumerate(leaving):
                path = f"/leaves{number}/{how['parts']}/{how['framing']}"
                task = asyncio.create_task(ask(upstream, plain.url, path, how["reads"]))
                tasks.append(task)
                for _ in range(how["turns"]):
                    await asyncio.sleep(0)
                task.cancel()
                if not how["together"]:
                    await asyncio.gather(task, return_exceptions=True)
                for name, reads in ("stays", -1), (f"other{number}", 1 << 30):
                    body = await ask(upstream, plain.url, f"/{name}/5/chunked", reads)
                    assert body == name.encode() * 35
            for task, number in zip(tasks, range(len(tasks)), strict=True):
                (body,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(body, bytes):
                    assert body == (b"leaves%d" % number * len(body))[: len(body)]
            await upstream.close()

    run(play())


def test_what_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    async def play() -> None:
        async with plain_server(stray=WHOLE) as plain:
            upstream = Upstream(LIMITS)
            for number in range(5):
                body = await ask(upstream, plain.url, f"/c{number}/2/length")
                assert body == b"c%d" % number * 14
                for _ in range(10):  # the stray answer arrives
                    await asyncio.sleep(0)
            assert plain.connections == 5
            await upstream.close()

    run(play())


def test_a_connection_is_kept_for_the_next_request() -> None:
    async def play() -> None:
        async with plain_server() as plain:
            upstream = Upstream(LIMITS)
            for _ in range(5):
                await ask(upstream, plain.url, "/a/2/chunked")
            assert plain.connections == 1
            with pytest.raises(asyncio.CancelledError):
                await cancelled_after(3, ask(upstream, plain.url, "/a/30/chunked", reads=1))
            await ask(upstream, plain.url, "/a/30/chunked", reads=1)
            assert await ask(upstream, plain.url, "/b/1/length") == b"b" * 7
            assert plain.connections >= 2
            await upstream.close()

    run(play())


async def cancelled_after(turns: int, work: Awaitable[bytes]) -> bytes:
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    return await task


async def failure(url: str, path: str = "/") -> Exception:
    upstream = Upstream(LIMITS)
    try:
        await ask(upstream, url, path)
    except (Unreachable, Broken, Exhausted) as error:
        return error
    finally:
        await upstream.close()
    raise AssertionError("it answered")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1", "Cannot connect"),
        ("http://host.invalid:80", "Cannot connect"),
        ("http://127.0.0.1:99999", "no address"),
        ("ftp://127.0.0.1:80", "no address"),
        ("127.0.0.1", "no address"),
        ("https://127.0.0.1:{port}", "ssl"),
        ("http://user:word@127.0.0.1:{port}", "lost"),
    ],
)
def test_what_cannot_be_reached_is_unreachable_and_says_why(url: str, why: str) -> None:
    async def play() -> Exception:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            return await failure(url.format(port=server.sockets[0].getsockname()[1]))

    error = run(play())
    if why == "lost":
        assert isinstance(error, Broken)
    else:
        assert isinstance(error, Unreachable)
        assert why.lower() in str(error).lower()


def every_client_error() -> list[aiohttp.ClientError]:
    key = SimpleNamespace(ssl=True, host="h", port=1, is_ssl=True)
    info = aiohttp.RequestInfo(URL("http://h"), "POST", None, URL("http://h"))  # type: ignore[arg-type]
    kinds = [kind for kind in vars(aiohttp).values() if inspect.isclass(kind)]
    errors = [kind.__new__(kind) for kind in kinds if issubclass(kind, aiohttp.ClientError)]
    for error in errors:
        error.__dict__.update(_conn_key=key, _os_error=OSError(1, "no"), request_info=info)
        error.__dict__.update(status=1, message="", headers=None, history=(), host="h", port=1)
        error.__dict__.update(_certificate_error=ValueError("x"), expected=b"", got=b"")
        error.__dict__.update(_url="", _description="")
    return errors


@pytest.mark.parametrize(
    ("place", "kind"), [(aiohttp.TCPConnector, Unreachable), (ResponseHandler, Broken)]
)
def test_every_error_of_the_client_is_translated(
    place: type, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(error: Exception) -> Exception:
        async def fails(*_: object) -> None:
            raise error

        name = "connect" if kind is Unreachable else "read"
        async with plain_server() as plain:
            monkeypatch.setattr(place, name, fails)
            return await failure(plain.url)

    more = [HttpProcessingError(message="no")] if kind is Broken else [TimeoutError()]
    for error in [*every_client_error(), *more]:
        assert isinstance(run(play(error)), kind), error


def test_a_header_of_several_lines_is_not_sent() -> None:
    async def play() -> None:
        async with plain_server() as plain:
            upstream = Upstream(LIMITS)
            with pytest.raises(Broken, match="more than one line"):
                await ask(upstream, plain.url, "/a/1/length", headers=[("x", "1\r\ny: 2")])
            assert await ask(upstream, plain.url, "/a/1/length") == b"a" * 7
            await upstream.close()

    run(play())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_lack_of_our_own_is_blamed_on_nobody(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_left(*_: object, **__: object) -> socket.socket:
        raise OSError(number, "Too many open files")

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", none_left)
    assert isinstance(run(failure("http://127.0.0.1:9")), Exhausted)


@pytest.mark.parametrize("stays", [True, False], ids=["it serves on", "it died"])
def test_a_request_on_a_kept_connection_that_closes_is_sent_once_more(*, stays: bool) -> None:
    """It closes as the second request comes: from here that looks as if it had before."""
    asked = []

    async def play() -> None:
        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(WHOLE)
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if not stays:
                server.close()
            writer.close()

        server = await asyncio.start_server(once, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = Upstream(LIMITS)
        assert await ask(upstream, url, "/") == b'{"whole": true}'
        if stays:
            assert await ask(upstream, url, "/") == b'{"whole": true}'
        else:
            with pytest.raises(Broken, match="and now"):
                await ask(upstream, url, "/")
        await upstream.close()
        server.close()

    run(play())
    assert len(asked) == (3 if stays else 2)


def test_an_outside_server_is_asked_through_the_proxy_of_the_environment_only_where_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(WHOLE)
        writer.close()

    async def play() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        proxy_of.cache_clear()
        url = address_of("http://far.invalid:81/base/", "/v1/x?a=b")
        async with server:
            upstream = Upstream(LIMITS)
            async with upstream.exchange(url, [], b"{}", far=Far(proxy=True)) as exchange:
                assert exchange.status == 200
            for far in (None, Far()):
                with pytest.raises(Unreachable):
                    async with upstream.exchange(url, [], b"{}", far=far):
                        pass
            await upstream.close()

    run(play())
    proxy_of.cache_clear()
    assert asked == [b"POST http://far.invalid:81/base/v1/x?a=b HTTP/1.1"]


@pytest.mark.parametrize(
    ("base", "host"),
    [
        ("http://[::1]:8000", "[::1]:8000"),
        ("https://h", "h"),
        ("https://h:443/x", "h"),
        ("http://h:80", "h"),
        ("http://h:443", "h:443"),
    ],
)
def test_the_host_is_named_as_http_wants_it(base: str, host: str) -> None:
    async def head() -> bytes:
        request = _request("POST", address_of(base, "/v1/x?a=b"), "", None)
        return _head(request, [("x", "\xe9")], b"{}")

    path = "/x/v1/x" if base.endswith("/x") else "/v1/x"
    expected = f"POST {path}?a=b HTTP/1.1\r\nHost: {host}\r\nx: \xe9\r\ncontent-length: 2\r\n\r\n"
    assert run(head()) == expected.encode("latin-1")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_what_goes_wrong_with_a_part_is_told_to_whoever_hands_it_over(framing: str) -> None:
    def take(part: bytes) -> None:
        raise ZeroDivisionError(part)

    async def play() -> None:
        async with plain_server() as plain:
            upstream = Upstream(LIMITS)
            url = address_of(plain.url, f"/a/3/{framing}")
            with pytest.raises(ZeroDivisionError):
                async with upstream.exchange(url, [], b"") as exchange:
                    await exchange.each(take)
            assert await ask(upstream, plain.url, "/b/1/length") == b"b" * 7
            await upstream.close()

    run(play())
