"""Revisions on a real cluster of two emulated pools, asked by the official client."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import openai
import psutil
import pytest
import ray
import ray.serve.context

from orchestrator import wiring
from orchestrator.adapters.raycluster import managed_ray
from orchestrator.adapters.rayserve import RayServing, state
from orchestrator.core.endpoints.life import Deployment, Revision, RevisionState, RevisionUpdated
from orchestrator.core.errors import ServingError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import ClusterSettings
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.engines import EngineSpec, Maker, MetricNames
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Endpoint, Needs
from orchestrator.endpoints import updates
from orchestrator.endpoints.revisions import Revisions
from orchestrator.messages import Failed, Message, Placed, PoolState, Succeeded
from orchestrator.supervisor.record import wait
from tests import processes
from tests.adapters.rayserve.clients import (
    SECONDS,
    Streams,
    answers,
    ask,
    model_of,
    outcome,
    predict,
    stream,
)
from tests.build import accelerator
from tests.clusters import cluster_of
from tests.jobs.engines.tiny_llama import save_tiny_llama
from tests.serving_fakes import MemoryEndpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow]

POOLS = {
    "nvidia": Pool(
        name="nvidia",
        accelerator=accelerator(name="h800", resource="GPU"),
        emulation=Emulation(),
    ),
    "ascend": Pool(
        name="ascend",
        accelerator=accelerator(name="ascend-910c", resource="NPU"),
        devices_per_node=2,
        emulation=Emulation(),
    ),
}
FAKE = Path(__file__).with_name("fake_server.py")
BROKEN_ENGINE = """
class Engine:
    def __init__(self, folder, hardware):
        raise RuntimeError(f"no kernel for {hardware.accelerator} on {hardware.device}")


class Classifier:
    def __init__(self, folder, hardware):
        self.broken = ""

    async def predict(self, body):
        self.broken = body.get("break", "")
        return {"class": len(body)}

    def health(self):
        return self.broken

    def close(self):
        pass
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with cluster_of(POOLS) as home:
        yield managed_ray.up(home, POOLS, ClusterSettings())


@pytest.fixture(scope="module")
def serving(address: str) -> Iterator[RayServing]:
    serving = RayServing(address, wiring.fetch_model, wiring.clock)
    yield serving
    serving.settle()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("storage")
    store = wiring.artifact_store(folder.as_uri())
    model = store.scratch("model")
    (model / "config.json").write_text("{}")
    code = tmp_path_factory.mktemp("code")
    (code / "their_engines.py").write_text(BROKEN_ENGINE)
    return Deployment(
        run="r1",
        stage="serve",
        attempt=1,
        endpoint=Endpoint(name="echo", engine="jobs.engines.echo.EchoEngine"),
        model=store.commit(model, "model", {}),
        format="bf16",
        pool=POOLS["ascend"],
        needs=Needs(cpus=0.5),
        packages=("jobs", "their_engines"),
        code=(str(code),),
        storage=folder.as_uri(),
        token="secret",  # noqa: S106 - a test's own
    )


def broken(deployment: Deployment) -> Deployment:
    endpoint = replace(deployment.endpoint, engine="their_engines.Engine")
    return replace(deployment, endpoint=endpoint, attempt=9, revision=9)


def nodes(said: Sequence[Message]) -> list[str]:
    return [node for message in said if isinstance(message, Placed) for node in message.nodes]


def failed(said: Sequence[Message]) -> Failed:
    assert isinstance(said[-1], Failed), said
    return said[-1]


def gone(serving: RayServing, name: str) -> bool:
    return wait(lambda: name not in serving.live(), SECONDS)


def test_revisions_live_on_their_pools_side_by_side_and_go(
    serving: RayServing, deployment: Deployment
) -> None:
    said = outcome(serving, deployment)
    assert isinstance(said[-1], Succeeded), said
    assert said[-1].metrics["ready_seconds"] > 0
    assert nodes(said) == ["ascend-0"]
    found = serving.live()["echo.r1"]
    assert (found.pool, found.state, len(found.urls)) == ("ascend", PoolState.UP, 1)
    assert ask(found.urls[0], "2+2") == "2+2"
    assert stream(found.urls[0], "piece by piece") == list("piece by piece")
    client = ray.serve.context._get_global_client()
    assert client.get_serve_details()["http_options"]["port"] == 0  # 8000 is the gateway's
    with pytest.raises(openai.AuthenticationError):
        ask(found.urls[0], "let me in", key="guessed")

    said = outcome(serving, replace(deployment, pool=POOLS["nvidia"], attempt=2, revision=2))
    assert isinstance(said[-1], Succeeded), said
    assert nodes(said) == ["nvidia-0"]
    other = serving.live()["echo.r2"]
    assert other.pool == "nvidia"
    assert (ask(found.urls[0], "old"), ask(other.urls[0], "new")) == ("old", "new")

    for name in ("echo.r1", "echo.r2"):
        serving.delete(name)
        assert gone(serving, name)
    assert wait(lambda: not answers(found.urls[0]), SECONDS)
    with pytest.raises(ServingError, match=r"no revision 'echo.r1'; live: none"):
        serving.delete("echo.r1")


def test_a_replica_that_is_killed_comes_back(serving: RayServing, deployment: Deployment) -> None:
    asked = replace(deployment, attempt=3, revision=3)
    assert isinstance(outcome(serving, asked)[-1], Succeeded)
    (before,) = serving.live()["echo.r3"].urls
    processes.marked("ServeReplica:echo.r3")[0].kill()

    def back() -> bool:
        return any(map(answers, serving.live()["echo.r3"].urls))

    assert wait(back, SECONDS), before
    serving.delete("echo.r3")
    assert gone(serving, "echo.r3")


def test_what_is_no_language_model_deploys_and_is_replaced_when_it_breaks(
    serving: RayServing, deployment: Deployment
) -> None:
    endpoint = replace(deployment.endpoint, engine="their_engines.Classifier")
    asked = replace(deployment, endpoint=endpoint, attempt=10, revision=10)
    said = outcome(serving, asked)
    assert isinstance(said[-1], Succeeded), said
    (url,) = serving.live()["echo.r10"].urls
    assert predict(url, {"pixels": [1]}) == {"class": 1}
    predict(url, {"break": "its chip is gone"})
    assert wait(lambda: serving.live()["echo.r10"].urls != (url,), SECONDS)
    assert wait(lambda: bool(serving.live()["echo.r10"].urls), SECONDS)
    assert predict(serving.live()["echo.r10"].urls[0], {}) == {"class": 0}
    serving.delete("echo.r10")
    assert gone(serving, "echo.r10")


def served_by_a_server(deployment: Deployment, mode: str, number: int) -> Deployment:
    spec = EngineSpec(
        name="fake",
        command=("{python}", str(FAKE), "{port}", "{model}", "{name}", mode, processes.SESSION),
        key_variable="FAKE_KEY",
        figures=MetricNames(running="running", waiting="waiting", tokens=("tokens",)),
        makers={"cpu": Maker()},
    )
    endpoint = replace(deployment.endpoint, engine="fake", server=spec)
    return replace(deployment, endpoint=endpoint, attempt=number, revision=number)


def servers() -> list[psutil.Process]:
    return processes.engines(str(FAKE))


def test_an_engine_server_answers_at_its_own_port_is_replaced_when_it_dies_and_goes(
    serving: RayServing, deployment: Deployment
) -> None:
    asked = served_by_a_server(deployment, "well", 6)
    said = outcome(serving, asked)
    assert isinstance(said[-1], Succeeded), said
    (url,) = serving.live()["echo.r6"].urls
    assert model_of(url), "no path of Serve's, its own port"
    (replica,) = state.applications()["echo.r6"].replicas_at  # type: ignore[index]
    assert replica != url
    for path, key, status in (
        ("/ready", "", 200),
        ("/metrics", "guessed", 401),
        ("/metrics", "secret", 200),
    ):
        request = urllib.request.Request(f"{replica}{path}")  # noqa: S310 - as above
        request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
                told, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            told, text = error.code, ""
        assert told == status, path
    assert 'tokens{endpoint="echo",revision="r6",replica="' in text

    (server,) = servers()
    server.kill()

    def replaced() -> bool:
        urls = serving.live()["echo.r6"].urls
        return bool(urls) and urls != (url,) and bool(model_of(urls[0]))

    assert wait(replaced, SECONDS)
    serving.delete("echo.r6")
    assert gone(serving, "echo.r6")
    assert wait(lambda: not servers(), SECONDS)


def served_model(deployment: Deployment, root: Path, name: str, **config: int) -> Deployment:
    """Return the deployment of a tiny model, by two replicas of the embedded engine."""
    store = wiring.artifact_store(deployment.storage)
    save_tiny_llama(root, **config)
    embedded = "jobs.engines.embedded.EmbeddedEngine"
    endpoint = replace(deployment.endpoint, engine=embedded, replicas=2)
    model = store.commit(root, name, {})
    return replace(deployment, endpoint=endpoint, model=model, attempt=11, revision=11)


def test_weights_change_under_eight_streams_and_no_answer_is_dropped(
    serving: RayServing, deployment: Deployment, tmp_path: Path
) -> None:
    shapes: tuple[dict[str, int], ...] = ({"seed": 0}, {"seed": 1}, {"hidden_size": 32})
    old, new, other = (
        served_model(deployment, tmp_path / f"{n}", f"tiny-{n}", **shape)
        for n, shape in enumerate(shapes)
    )
    said = outcome(serving, old)
    assert isinstance(said[-1], Succeeded), said
    assert wait(lambda: len(serving.live()["echo.r11"].urls) == 2, SECONDS)
    endpoints = MemoryEndpoints()
    first = endpoints.endpoint("echo")
    life = replace(
        first,
        revisions={11: Revision(number=11, since=0.0, deployment=old, state=RevisionState.READY)},
    )
    endpoints.lives["echo"] = life
    revisions = Revisions(endpoints, serving, wiring.clock())

    def update(to: Deployment, version: str) -> tuple[int, list[str]]:
        event = RevisionUpdated(11, to.model, version)
        return updates.update(revisions, serving, endpoints.endpoint("echo"), event)

    streams = Streams(serving.live()["echo.r11"].urls)
    try:
        assert streams.made_by(old.weights)
        assert update(new, "new") == (2, [])
        assert streams.made_by("new")
        with pytest.raises(ServingError, match="'new' serves on"):
            update(other, "other")
        assert streams.made_by("new", streams.tokens["new"]), "it serves on"
    finally:
        streams.end()
    assert streams.wrong == []
    assert set(streams.tokens) == {old.weights, "new"}, streams.tokens

    stored = endpoints.endpoint("echo").revisions[11].deployment
    assert stored is not None
    # Serve starts another, of what it was first deployed with.
    processes.marked("ServeReplica:echo.r11")[0].kill()

    def versions() -> set[str]:
        return {one.version for one in serving.weights(stored).values()}

    assert wait(lambda: old.weights in versions(), SECONDS)
    reconciled = updates.Updates(serving, wiring.clock(), print)

    def back() -> bool:
        reconciled.catch_up(stored)
        return versions() == {"new"} and len(serving.weights(stored)) == 2

    assert wait(back, SECONDS)
    serving.delete("echo.r11")
    assert gone(serving, "echo.r11")


def test_an_engine_server_that_does_not_start_is_told_by_its_own_last_words(
    serving: RayServing, deployment: Deployment
) -> None:
    found = failed(outcome(serving, served_by_a_server(deployment, "oom", 7))).failure
    words = "engine 'fake' ended with status 1: torch.OutOfMemoryError: CUDA out of memory"
    assert found.evidence == words
    assert "See root cause above" in found.detail
    assert gone(serving, "echo.r7")


def test_a_server_whose_start_is_cancelled_leaves_no_process(
    serving: RayServing, deployment: Deployment
) -> None:
    asked = served_by_a_server(deployment, "sick", 8)  # never ready
    serving.start(asked)
    assert wait(lambda: bool(servers()), SECONDS)
    serving.cancel(asked.key)
    assert gone(serving, "echo.r8")
    assert wait(lambda: not servers(), SECONDS)


def test_what_no_node_can_ever_give_is_told_at_once(
    serving: RayServing, deployment: Deployment
) -> None:
    said = outcome(serving, replace(deployment, needs=Needs(cpus=0.5, devices=4), revision=4))
    assert len(said) == 1
    found = failed(said).failure
    assert found.kind is FailureKind.PLACEMENT
    never = "the nodes of pool 'ascend' can never give 1 x 2 nodes with (0.5 CPU, 2 NPU)"
    assert found.evidence == never
    assert serving.live() == {}


def test_an_engine_that_breaks_is_told_by_its_own_error_and_leaves_nothing(
    serving: RayServing, deployment: Deployment
) -> None:
    found = failed(outcome(serving, broken(deployment))).failure
    assert found.kind is FailureKind.SERVING
    assert found.evidence == "RuntimeError: no kernel for ascend-910c on cpu"
    assert "Traceback" in found.detail
    assert gone(serving, "echo.r9")


def test_a_node_that_was_not_measured_serves_nothing(serving: RayServing, deployment) -> None:
    asked = replace(deployment, attempt=19, revision=19, measured=("another",))
    assert "is not among those" in failed(outcome(serving, asked)).failure.evidence
    assert gone(serving, "echo.r19")


def test_a_deployment_that_is_cancelled_leaves_nothing(
    serving: RayServing, deployment: Deployment
) -> None:
    asked = replace(deployment, attempt=5, revision=5)
    serving.start(asked)
    assert wait(lambda: bool(serving.poll(asked.key)), SECONDS)
    began = time.monotonic()
    serving.cancel(asked.key)
    assert time.monotonic() - began < 1.0, "whoever cancels does not wait"
    assert "echo.r5" not in serving.live()
    serving.settle()
    assert gone(serving, "echo.r5")
    assert serving.poll(asked.key) == []
    assert wait(serving.stop, SECONDS)
