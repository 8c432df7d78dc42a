"""The gateway against no gateway, and against what one would take instead of it.

Those are thirty lines of Starlette and aiohttp, LiteLLM's proxy, and Ray Serve's own ingress. All
stand before the same server, which costs next to nothing, and are asked by the same clients, in
turns. Of the ratios of all rounds the median is told, and within what half of them lie. CPU time
is that of the processes that a request passes: load beside them does not change it.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil
import uvloop

from tests.benchmarks.chat_client import Chat
from tests.benchmarks.table import Row, in_rounds
from tests.ports import free_port

CLIENTS = 16
SECONDS = 1.0  # of each measurement
ROUNDS = 5
SECONDS_TO_START = 120.0
KEY = f"sk-{secrets.token_hex(32)}"
LITELLM = Path(".venv-litellm/bin/litellm")
MODELS = """
model_list:
  - model_name: echo
    litellm_params: {{model: hosted_vllm/echo, api_base: "{url}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""
QUIET = {"LITELLM_LOG": "CRITICAL", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
FOREIGN = ("RAY_ADDRESS", "ORCHESTRATOR_DATABASE", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the server; `counted` are the processes that a request passes."""

    port: int
    counted: tuple[psutil.Process, ...] = ()

    def cpu(self) -> float:
        """Return the seconds of CPU that it has taken."""
        return sum(sum(process.cpu_times()[:2]) for process in self.counted)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one round came to: rates a second, CPU in microseconds, times in milliseconds."""

    requests: float
    answer_cpu: float
    paced: float
    token_cpu: float
    tokens: float
    many_cpu: float
    first: float


def rows() -> list[Row]:
    """Ask all ways in turns."""
    with ExitStack() as stack:
        ways = {NOTHING: Way(stack.enter_context(_upstream()))}
        url = f"http://127.0.0.1:{ways[NOTHING].port}"
        for name, start in STARTS.items():
            try:
                ways[name] = stack.enter_context(start(url))
            except FileNotFoundError as error:
                print(f"without {name}: {error}; `make bench` makes it", file=sys.stderr)
        rounds = [_round(ways) for _ in range(ROUNDS + 1)][1:]  # the first one warms up
    return [row for name in ways if name != OURS for row in _compared(name, rounds)]


def _compared(name: str, rounds: list[dict[str, Figures]]) -> Iterator[Row]:
    ours = [astuple(figures[OURS]) for figures in rounds]
    theirs = [astuple(figures[name]) for figures in rounds]
    columns = zip(SHOWN.items(), zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    for (what, (unit, goal, goal_past)), own, other in columns:
        if name != NOTHING:
            yield in_rounds(f"{what}: the gateway, {name}", own, other, unit=unit, goal=goal)
        elif any(other):
            full = f"{what}: through the gateway, past it"
            yield in_rounds(full, own, other, unit=unit, goal=goal_past)
        elif goal_past:
            yield Row(name=f"{what}: the gateway", ours=median(own), unit=unit, goal=goal_past)


# What is shown of `Figures`, in their order: unit, goal against other gateways, and against none.
SHOWN = {
    "requests/s of 16 clients": ("1/s", "ratio > 1", "-"),
    "CPU of a whole answer": ("us", "ratio < 1", ""),
    "tokens/s of 16 streams, a token each 2 ms": ("1/s", "ratio >= 1", "ratio >= 0.9"),
    "CPU of a token that comes alone": ("us", "ratio < 1", ""),
    "tokens/s of 16 streams, eight tokens each 4 ms": ("1/s", "ratio >= 1", "ratio >= 0.9"),
    "CPU of a token of eight": ("us", "ratio < 1", ""),
    "first token later": ("ms", "ratio < 1", "ours <= 3"),
}


def _round(ways: dict[str, Way]) -> dict[str, Figures]:
    """Ask each way, and tell how much later than past it the first token comes."""
    figures = {name: uvloop.run(_asked(way)) for name, way in ways.items()}
    past = figures[NOTHING].first
    return {name: replace(one, first=one.first - past) for name, one in figures.items()}


async def _asked(way: Way) -> Figures:
    whole = await _measured(way, {"max_tokens": 16})
    paced = await _measured(way, _stream("0.002 1", 128))
    many = await _measured(way, _stream("0.004 8", 1024))
    first = 1e3 * await _first(way.port)
    return Figures(*whole, *paced, *many, first)


def _stream(pace: str, tokens: int) -> dict[str, object]:
    message = {"role": "user", "content": pace}
    return {"stream": True, "max_tokens": tokens, "messages": [message]}


async def _measured(way: Way, body: dict[str, object]) -> tuple[float, float]:
    """Return answers, or tokens of streams, a second, and the CPU of each in microseconds."""
    each = body["max_tokens"] if "stream" in body else 1
    done = 0
    began, cpu = perf_counter(), way.cpu()
    until = began + SECONDS

    async def client() -> None:
        nonlocal done
        async with Chat(way.port, KEY, body) as chat:
            while perf_counter() < until:
                await chat.ask()
                done += each

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return done / (perf_counter() - began), 1e6 * (way.cpu() - cpu) / done


async def _first(port: int, times: int = 10) -> float:
    """Return the median time to the first token, in seconds; four clients at once."""
    firsts: list[float] = []

    async def client() -> None:
        async with Chat(port, KEY, _stream("0.002 1", 4)) as chat:
            firsts.extend([await chat.ask() for _ in range(times)])

    await asyncio.gather(*(client() for _ in range(4)))
    return median(firsts)


@contextmanager
def _upstream() -> Iterator[int]:
    with _started("tests.benchmarks.paced_upstream") as way:
        yield way.port


@contextmanager
def _gateway(url: str) -> Iterator[Way]:
    with _started("tests.benchmarks.product_gateway", url, after=(KEY,)) as way:
        yield way


@contextmanager
def _plain(url: str) -> Iterator[Way]:
    with _started("tests.benchmarks.plain_proxy", url) as way:
        yield way


@contextmanager
def _ingress(url: str) -> Iterator[Way]:
    with _started("tests.benchmarks.serve_ingress", url) as way:
        actors = re.compile("ray::(ProxyActor|ServeReplica)")
        below = psutil.Process().children(recursive=True)
        named = [process for process in below if actors.match("".join(process.cmdline()))]
        if len(named) != 2:
            raise RuntimeError(f"{named}: a proxy and a replica are needed")
        yield Way(way.port, tuple(named))


@contextmanager
def _litellm(url: str) -> Iterator[Way]:
    if not LITELLM.exists():
        raise FileNotFoundError(f"{str(LITELLM)!r} is not there")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        config.write(MODELS.format(url=url, key=KEY))
        config.flush()
        port = free_port()
        named = ["--config", config.name, "--host", "127.0.0.1", "--port", str(port)]
        with _running([str(LITELLM.resolve()), *named], port) as way:
            yield way


NOTHING, OURS = "no gateway", "the gateway"
STARTS: dict[str, Callable[[str], object]] = {
    OURS: _gateway,
    "starlette and aiohttp in thirty lines": _plain,
    "LiteLLM's proxy": _litellm,
    "Ray Serve's ingress": _ingress,
}


@contextmanager
def _started(module: str, *before: str, after: tuple[str, ...] = ()) -> Iterator[Way]:
    port = free_port()
    command = [sys.executable, "-m", module, *before, str(port), *after]
    with _running(command, port) as way:
        yield way


@contextmanager
def _running(command: list[str], port: int) -> Iterator[Way]:
    """Run `command` until the block ends, which begins once a chat is answered at `port`."""
    env = {**os.environ, **QUIET}  # noqa: TID251 - what it runs in is ours to say
    for name in FOREIGN:
        env.pop(name, None)
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as started:
        try:
            uvloop.run(_answers(port, started))
            yield Way(port, (psutil.Process(started.pid),))
        finally:
            started.terminate()


async def _answers(port: int, started: subprocess.Popen[bytes]) -> None:
    """Wait until a chat is answered at `port`.

    Raises:
        RuntimeError: The process has ended.
        TimeoutError: It takes too long.
    """
    async with asyncio.timeout(SECONDS_TO_START):
        while True:
            try:
                async with Chat(port, KEY, {"max_tokens": 1}) as chat:
                    await chat.ask()
                    return
            except (OSError, EOFError) as error:
                if started.poll() is not None:
                    raise RuntimeError(f"{started.args!r} ended: {error}") from error
                await asyncio.sleep(0.2)
