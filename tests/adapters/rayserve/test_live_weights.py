"""Weights are exchanged under streams: none is dropped, and each token names what made it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import openai
import psutil
import pytest

from orchestrator import wiring
from orchestrator.adapters.rayserve import RayServing
from orchestrator.core.endpoints import Deployment, RevisionAdded, RevisionReady, RevisionUpdated
from orchestrator.core.errors import ServingError
from orchestrator.core.spec import Endpoint, Needs
from orchestrator.endpoints import updates
from orchestrator.endpoints.revisions import Revisions
from orchestrator.messages import Succeeded
from orchestrator.supervisor.record import wait
from tests.adapters.rayserve.test_rayserve import (  # noqa: F401 - fixtures
    POOLS,
    address,
    gone,
    named,
    outcome,
    serving,
)
from tests.jobs.engines.tiny_llama import save_tiny_llama
from tests.serving_fakes import MemoryEndpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(540)]

STREAMS, TOKENS = 8, 32
SECONDS = 120.0
SHAPES = {"hidden_size": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deployment]:
    """Deployments of a model, of another like it, and of one of another shape."""
    root = tmp_path_factory.mktemp("storage").as_uri()
    store = wiring.artifact_store(root)
    found = {}
    for name, seed, config in (("old", 0, {}), ("new", 1, {}), ("other", 2, SHAPES)):
        folder = store.scratch(name)
        save_tiny_llama(folder, seed=seed, **config)
        found[name] = Deployment(
            run="r1",
            stage="serve",
            attempt=1,
            endpoint=Endpoint(
                name="tiny", engine="jobs.engines.embedded.EmbeddedEngine", replicas=2
            ),
            model=store.commit(folder, name, {}),
            format="bf16",
            pool=POOLS["ascend"],
            needs=Needs(cpus=0.5),
            packages=("jobs",),
            code=(),
            storage=root,
            token="secret",  # noqa: S106 - a test's own
        )
    return found


class Streams:
    """Clients that stream one answer after the other, until they are told to end."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.tokens: Counter[str] = Counter()
        self.answers, self.wrong = 0, list[str]()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        clients = (urls[number % len(urls)] for number in range(STREAMS))
        self._threads = [threading.Thread(target=self._run, args=(url,)) for url in clients]
        for thread in self._threads:
            thread.start()

    def _run(self, url: str) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:
            while not self._ended.is_set():
                try:
                    self._ask(client)
                except openai.OpenAIError as error:
                    self.wrong.append(repr(error))

    def _ask(self, client: openai.OpenAI) -> None:
        chunks = client.completions.create(
            model="tiny", prompt="1 + 1 =", max_tokens=TOKENS, temperature=0, stream=True
        )
        finish, versions = None, list[str]()
        for chunk in chunks:
            versions.append(str(chunk.system_fingerprint))
            finish = finish or (chunk.choices and chunk.choices[0].finish_reason)
        with self._lock:
            self.answers += 1
            self.tokens.update(versions)
            if finish not in {"stop", "length"}:
                self.wrong.append(f"an answer ended by {finish!r}")

    def made_by(self, version: str, before: int = 0) -> bool:
        """Wait until more than `before` tokens were made by a version."""
        return wait(lambda: self.tokens[version] > before, SECONDS)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_weights_change_under_eight_streams_and_no_answer_is_dropped(
    serving: RayServing,  # noqa: F811 - the fixture
    models: dict[str, Deployment],
) -> None:
    old = models["old"]
    said = outcome(serving, old)
    assert isinstance(said[-1], Succeeded), said
    assert wait(lambda: len(serving.live()["tiny.r1"].urls) == 2, SECONDS)
    store = MemoryEndpoints()
    store.follow(store.endpoint("tiny"), [RevisionAdded(1, old), RevisionReady(1)], 1.0)
    revisions = Revisions(store, serving, wiring.clock())

    def update(name: str) -> tuple[int, list[str]]:
        event = RevisionUpdated(1, models[name].model, f"tiny/{name}")
        return updates.update(revisions, serving, store.endpoint("tiny"), event)

    streams = Streams(serving.live()["tiny.r1"].urls)
    try:
        assert streams.made_by(old.weights)
        assert update("new") == (2, [])
        assert streams.made_by("tiny/new")
        with pytest.raises(ServingError, match=r"'tiny/new' serves on"):
            update("other")
        assert streams.made_by("tiny/new", streams.tokens["tiny/new"]), "it serves on"
    finally:
        streams.end()
    assert streams.wrong == []
    assert set(streams.tokens) == {old.weights, "tiny/new"}, streams.tokens
    print(f"{streams.answers} answers, 0 failed; tokens {dict(streams.tokens)}")

    stored = store.endpoint("tiny").revisions[1].deployment
    assert stored is not None
    assert {one.version for one in serving.weights(stored).values()} == {"tiny/new"}
    pid = next(p.pid for p in psutil.process_iter() if "ServeReplica:tiny.r1" in named(p))
    psutil.Process(pid).kill()  # Serve starts another, of what it was first deployed with

    def versions() -> set[str]:
        return {one.version for one in serving.weights(stored).values()}

    assert wait(lambda: old.weights in versions(), SECONDS)
    clock = wiring.clock()
    reconciled = updates.Updates(serving, clock, print)

    def back() -> bool:
        reconciled.look(stored)
        return versions() == {"tiny/new"} and len(serving.weights(stored)) == 2

    assert wait(back, SECONDS)
    serving.delete("tiny.r1")
    assert gone(serving, "tiny.r1")
    assert replace(stored, model=old.model, version="") == old
