"""The weights of a replica are exchanged while it answers, by who has its token."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.engines.echo import EchoEngine
from orchestrator.adapters.rayserve.weights import PATH, ServedWeights, with_weights
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ArtifactError
from orchestrator.serving.replica.app import replica
from tests.build import deployment
from tests.jobs.engines.tiny_llama import HARDWARE
from tests.serving.http_server import FixedClock

ORDER = {
    "model": {"uri": "file:///artifacts/new", "digest": "1" * 64, "size": 0},
    "storage": "file:///artifacts",
    "version": "v2",
}
OLD = "r1-00000000"
TOKEN = "secret"  # noqa: S105 - a test's own


class EchoReplica:
    """A replica with an echo engine, asked without a network."""

    def __init__(self, folder: Path, update: Callable[..., None] | None = None) -> None:
        self.engine = EchoEngine(folder, HARDWARE, version=OLD)
        self.fetched: list[Deployment] = []
        self.folder = folder
        self.weights = ServedWeights(deployment("chat"), self._fetch, update or self.engine.update)
        serves = replica(self.engine, "chat", FixedClock(), token=TOKEN)
        self.application = with_weights(serves, self.weights, TOKEN)

    def _fetch(self, of: Deployment) -> Path:
        self.fetched.append(of)
        return self.folder

    async def ask(
        self, path: str, body: object = None, *, token: str = TOKEN, method: str = ""
    ) -> tuple[int, Any]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            content = b"" if body is None else json.dumps(body).encode()
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(event: Any) -> None:
            sent.append(event)

        headers = [(b"authorization", f"Bearer {token}".encode())]
        method = method or ("GET" if body is None else "POST")
        scope = {"type": "http", "path": path, "method": method, "headers": headers}
        await self.application(scope, receive, send)
        return sent[0]["status"], json.loads(b"".join(e.get("body", b"") for e in sent[1:]))


@pytest.fixture
def place(tmp_path: Path) -> EchoReplica:
    return EchoReplica(tmp_path)


def test_the_new_weights_are_fetched_by_digest_and_named_by_answers(place: EchoReplica) -> None:
    async def act() -> None:
        prompt = {"model": "chat", "prompt": "a"}
        assert (await place.ask("/v1/completions", prompt))[1]["system_fingerprint"] == OLD
        status, told = await place.ask(PATH, ORDER)
        assert (status, told["version"]) == (200, "v2")
        assert (await place.ask("/v1/completions", prompt))[1]["system_fingerprint"] == "v2"
        assert (await place.ask(PATH))[1] == {
            "version": "v2",
            "pending": "",
            "refused": "",
            "reason": "",
        }
        assert (await place.ask(PATH, ORDER))[0] == 200

    asyncio.run(act())
    (asked,) = place.fetched
    assert (asked.model.digest, asked.storage) == ("1" * 64, "file:///artifacts")


def test_what_the_engine_or_the_storage_refuses_leaves_the_old_weights(place: EchoReplica) -> None:
    async def act() -> None:
        status, told = await place.ask(PATH, {**ORDER, "base": "v7"})
        why = f"version {OLD!r} serves, not 'v7'; {OLD!r} serves on"
        assert (status, told["error"]["message"]) == (409, why)
        told = (await place.ask(PATH))[1]
        assert (told["version"], told["refused"]) == (OLD, "v2")
        assert told["reason"] == f"version {OLD!r} serves, not 'v7'"

    asyncio.run(act())

    def torn(_of: Deployment) -> Path:
        raise ArtifactError("artifact 'new' has digest '2', not '1'; make it again")

    weights = ServedWeights(deployment("chat"), torn, place.engine.update)
    place.application = with_weights(place.application, weights, TOKEN)
    status, told = asyncio.run(place.ask(PATH, ORDER))
    assert (status, weights.version) == (409, OLD)
    assert "has digest '2'" in told["error"]["message"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({**ORDER, "version": None}, "version: "),
        ({k: v for k, v in ORDER.items() if k != "model"}, "model: "),
        ({**ORDER, "model": "m"}, "model: "),
        ([], "Input should be"),
    ],
)
def test_what_is_no_order_is_refused(place: EchoReplica, body: object, line: str) -> None:
    status, told = asyncio.run(place.ask(PATH, body))
    assert status == 400
    assert line in told["error"]["message"]


def test_only_who_has_the_token_may_ask(place: EchoReplica) -> None:
    assert asyncio.run(place.ask(PATH, ORDER, token="guessed"))[0] == 401  # noqa: S106 - a guess
    assert asyncio.run(place.ask(PATH, token=""))[0] == 401
    assert asyncio.run(place.ask(PATH, method="DELETE"))[0] == 405
    assert place.fetched == []


def test_an_engine_that_takes_no_weights_says_so(tmp_path: Path) -> None:
    place = EchoReplica(tmp_path)
    weights = ServedWeights(deployment("chat"), lambda _: tmp_path, None)
    place.application = with_weights(place.application, weights, TOKEN)
    status, told = asyncio.run(place.ask(PATH, ORDER))
    assert (status, told["error"]["message"]) == (409, "this engine can't take other weights")


def test_answers_go_on_meanwhile_and_who_leaves_or_does_not_wait_stops_nothing(
    tmp_path: Path,
) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def slowly(*_: object) -> None:
        begun.set()
        go_on.wait(10.0)

    async def act() -> None:
        place = EchoReplica(tmp_path, slowly)
        first = asyncio.create_task(place.ask(PATH, ORDER))
        assert await asyncio.to_thread(begun.wait, 10.0)
        assert (await place.ask("/v1/completions", {"model": "chat", "prompt": "a"}))[0] == 200
        status, told = await place.ask(PATH, {**ORDER, "wait": False})
        assert (status, told["version"], told["pending"]) == (202, OLD, "v2")
        assert (await place.ask(PATH, {**ORDER, "version": "v3"}))[0] == 409
        first.cancel()  # its client has left
        joined = asyncio.create_task(place.ask(PATH, ORDER))
        go_on.set()
        status, told = await joined
        assert (status, told["version"]) == (200, "v2")
        assert len(place.fetched) == 1

    asyncio.run(act())
