"""Malformed requests and slow clients, against the gateway in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from statistics import quantiles

import httpx2 as httpx
import psutil
import pytest

from tests.serving.http_server import echo_engine, echoing
from tests.serving.malformed import KINDS, ask, parse

GOOD = {"model": "echo", "prompt": "abc"}
HEADER_SECONDS = 1.0
SOME_KB = 8 * 1024


@dataclass
class Gateway:
    url: str
    process: psutil.Process

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rsplit(":", 1)[1])

    def kilobytes(self) -> float:
        return self.process.memory_info().rss / 1024

    def works(self, client: httpx.Client) -> bool:
        answer = client.post(f"{self.url}/v1/completions", json=GOOD)
        assert answer.status_code == 200, answer.text
        return True


@contextmanager
def gateway(**limits: float) -> Iterator[Gateway]:
    """Start a gateway of small limits before one echoing replica."""
    with echoing(echo_engine()) as urls:
        command = [sys.executable, "-m", "tests.serving.process", urls[0], json.dumps(limits)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
            try:
                assert started.stdout is not None
                yield Gateway(started.stdout.readline().strip(), psutil.Process(started.pid))
                assert started.poll() is None, "the gateway died"
            finally:
                started.terminate()
                assert started.wait(10) == 0


def malformed(number: int, seed: int) -> None:
    rng = Random(seed)  # noqa: S311 - no secret
    with gateway(body_bytes=65_536) as found, httpx.Client() as client:
        for kind in KINDS:  # warm up: what is made once is made
            ask(found.address, kind(rng))
        assert found.works(client)
        before = found.kilobytes()
        wrong: Counter[str] = Counter()
        for _ in range(number):
            kind = rng.choice(KINDS)
            status, body = ask(found.address, kind(rng))
            fine = 400 <= status < 500 and set(json.loads(body)) == {"error"}
            wrong[f"{kind.__name__} {status}"] += not fine
        assert found.works(client)
        grown = found.kilobytes() - before
        print(f"{number} malformed requests: {grown:.0f} KB more memory")
        assert +wrong == {}
        assert grown < SOME_KB


def test_malformed_requests_are_refused_in_bounded_memory() -> None:
    malformed(300, seed=1)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_ten_thousand_malformed_requests_change_nothing() -> None:
    malformed(10_000, seed=2)


def test_a_body_of_100_mb_is_refused_while_it_comes() -> None:
    with gateway() as found, httpx.Client() as client:
        before = found.kilobytes()
        block = b"a" * (1 << 20)
        answer = client.post(
            f"{found.url}/v1/completions", content=(block for _ in range(100)), timeout=30
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert found.kilobytes() - before < 2 * SOME_KB
        assert found.works(client)


def slow_connections(number: int, seconds: float, patience: float) -> tuple[float, float]:
    """Open `number` that send a byte a while, and see each closed and all others served meanwhile.

    Returns the p99 of those others' seconds without and with the slow ones beside them.
    """
    with gateway(header_seconds=seconds) as found, httpx.Client() as client, ExitStack() as stack:
        alone = latencies(found, client, seconds / 2)
        began = time.monotonic()
        slow = [
            stack.enter_context(socket.create_connection(found.address)) for _ in range(number)
        ]
        for connection in slow:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nx: ")
            connection.settimeout(0.0)
        beside: list[float] = []
        answers: dict[socket.socket, bytes] = {}
        while len(answers) < number and time.monotonic() - began < patience:
            beside += latencies(found, client, 0.1)
            for connection in slow:
                if connection not in answers and (said := trickled(connection)) is not None:
                    answers[connection] = said
        took = time.monotonic() - began
    statuses = Counter(parse(said)[0] for said in answers.values())
    assert statuses == {408: number}
    print(f"{number} slow connections closed in {took:.1f} s")
    return p99(alone), p99(beside)


def trickled(connection: socket.socket) -> bytes | None:
    """Send another byte; return the answer once the connection is closed."""
    try:
        said = connection.recv(4096)
    except BlockingIOError:
        connection.send(b"a")
        return None
    except ConnectionResetError:
        return b""
    return said


def latencies(found: Gateway, client: httpx.Client, seconds: float) -> list[float]:
    until = time.monotonic() + seconds
    taken = []
    while time.monotonic() < until:
        began = time.monotonic()
        assert found.works(client)
        taken.append(time.monotonic() - began)
    return taken


def p99(values: list[float]) -> float:
    return quantiles(values, n=100)[-1]


def test_slow_headers_are_closed_in_time_and_disturb_nobody() -> None:
    slow_connections(30, HEADER_SECONDS, patience=15.0)


@pytest.mark.chaos
def test_300_slow_connections_are_closed_within_15_seconds() -> None:
    alone, beside = slow_connections(300, 10.0, patience=15.0)
    print(f"p99 beside them {beside / alone:.2f} of alone")
    assert beside < max(2 * alone, 0.03)


def test_a_connection_that_says_nothing_or_stops_in_its_body_is_closed_in_time() -> None:
    part = b"POST /v1/completions HTTP/1.1\r\ncontent-length: 50\r\n\r\n{"
    with gateway(header_seconds=0.3, body_seconds=0.3) as found:
        for sent, what in ((b"", "headers"), (b"\r\n", "headers"), (part, "body")):
            status, body = ask(found.address, sent)
            assert status == 408
            assert f"the {what} of the request" in json.loads(body)["error"]["message"]


def test_a_long_body_has_time_as_long_as_it_comes_and_one_that_trickles_has_not() -> None:
    body = json.dumps({"model": "echo", "prompt": "a" * 900}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body)
    with gateway(body_seconds=0.3, body_rate=500) as found:
        for size, expected in ((50, 200), (1, 408)):
            with socket.create_connection(found.address, timeout=5) as connection:
                connection.sendall(head + body[:10])
                connection.settimeout(0.05)
                sent, said = 10, b""
                while not said and (sent < len(body) or size > 1):
                    connection.sendall(body[sent : sent + size])
                    sent += size
                    with suppress(TimeoutError):
                        said = connection.recv(1 << 16)
                assert parse(said)[0] == expected
                assert sent > 900 or size == 1


def test_a_half_closed_connection_is_told_and_closed() -> None:
    whole = b"POST /v1/completions HTTP/1.1\r\ncontent-length: 50\r\n\r\n{"
    with gateway() as found:
        for sent in (whole[:20], whole):
            with socket.create_connection(found.address, timeout=5) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                status, body = parse(connection.recv(4096))
                assert status == 400
                assert json.loads(body)["error"]["code"] == "request_incomplete"
                assert connection.recv(1) == b""


def test_the_process_is_light_and_knows_no_framework() -> None:
    code = (
        "import sys, os, psutil; import tests.serving.process as p;"
        "heavy = {'ray', 'torch', 'fastapi', 'starlette', 'mlflow', 'jobs'} & set(sys.modules);"
        "print(sorted(heavy), psutil.Process().memory_info().rss // 2**20)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, megabytes = run.stdout.rsplit(" ", 1)
    assert heavy == "[]"
    assert int(megabytes) < 80
    assert os.getpid()
