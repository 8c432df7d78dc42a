"""Where replicas are on a real cluster of two nodes, and what of secrets they are given."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import openai
import psutil
import pytest

from orchestrator import wiring
from orchestrator.adapters.raycluster import access, machine, managed_ray
from orchestrator.adapters.rayserve import RayServing, operations
from orchestrator.adapters.rayserve.serve_requests import DeploymentPorts, ServeRequest
from orchestrator.core.endpoints.life import (
    Deployment,
    RevisionAdded,
    RevisionReady,
    SharesMoved,
)
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.engines import EngineSpec, Maker, MetricNames
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Endpoint, Needs
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.messages import Failed, Message, Placed, Succeeded, UnusedNode, Waiting
from orchestrator.supervisor.record import wait
from tests.adapters.rayserve.clients import SECONDS, ask, outcome
from tests.build import accelerator
from tests.clusters import cluster_of
from tests.serving_fakes import MemoryEndpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow]

POOL = Pool(
    name="ascend",
    accelerator=accelerator(name="ascend-910c", resource="NPU"),
    nodes=2,
    emulation=Emulation(),
)
FAKE = Path(__file__).with_name("fake_server.py")
VALUE = "xyzzy-of-a-secret"
TELLING = """
import logging
import os
import sys

from jobs.engines.echo import EchoEngine


class Engine(EchoEngine):
    def __init__(self, folder, hardware):
        value = os.environ["HF_TOKEN"]
        print("it prints", value, flush=True)
        os.write(2, f"it writes {value}\\n".encode())
        logging.getLogger("ray.serve").warning("it logs %s", value)
        if os.environ.get("FAILS"):
            raise RuntimeError(f"the hub refuses {value}")
        super().__init__(folder, hardware)
"""
TELLING_SERVER = f"""
import os
import runpy
import sys

print("it prints", os.environ["HF_TOKEN"], flush=True)
sys.argv = sys.argv[1:]
runpy.run_path({str(FAKE)!r}, run_name="__main__")
"""


class Nodes:
    """Which nodes are not to be used, as a test sets it."""

    def __init__(self) -> None:
        self.unused: dict[str, UnusedNode] = {}

    def of(self, run: str, pool: str) -> dict[str, UnusedNode]:
        assert (run, pool) == ("r1", "ascend")
        return dict(self.unused)

    def drain(self, node: str) -> None:
        self.unused = {node: UnusedNode(pool="ascend", node=node, reason="new firmware")}

    def quarantine(self, node: str) -> None:
        why = "a chip broke"
        self.unused = {node: UnusedNode(pool="ascend", node=node, reason=why, until=1e12)}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with cluster_of({"ascend": POOL}) as folder:
        yield folder


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
def serving(home: Path, nodes: Nodes) -> Iterator[RayServing]:
    found = managed_ray.find(home)
    assert found is not None
    values = {"A_SECRET": VALUE, "YES": "fails-it-does"}
    serving = RayServing(
        found.address, wiring.fetch_model, wiring.clock, unused=nodes.of, secret=values.get
    )
    yield serving
    for name in serving.live():
        serving.delete(name)
    serving.settle()
    assert wait(lambda: not serving.live(), SECONDS)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    store = wiring.artifact_store((tmp_path / "storage").as_uri())
    model = store.scratch("model")
    (model / "config.json").write_text("{}")
    (tmp_path / "telling.py").write_text(TELLING)
    (tmp_path / "server.py").write_text(TELLING_SERVER)
    return Deployment(
        run="r1",
        stage="serve",
        attempt=1,
        endpoint=Endpoint(name="echo", engine="jobs.engines.echo.EchoEngine", drain=5.0),
        model=store.commit(model, "model", {}),
        format="bf16",
        pool=POOL,
        needs=Needs(cpus=0.5),
        packages=("jobs", "telling"),
        code=(str(tmp_path),),
        storage=(tmp_path / "storage").as_uri(),
        token="secret",  # noqa: S106 - a test's own
    )


def numbered(deployment: Deployment, number: int, **changes: object) -> Deployment:
    return replace(deployment, attempt=number, revision=number, **changes)  # type: ignore[arg-type]


def place(said: list[Message]) -> list[str]:
    assert isinstance(said[-1], Succeeded), said
    return [node for message in said if isinstance(message, Placed) for node in message.nodes]


@pytest.mark.parametrize("node", ["ascend-0", pytest.param("ascend-1", marks=pytest.mark.chaos)])
def test_a_replica_is_placed_on_no_node_that_is_drained_or_in_quarantine(
    serving: RayServing, deployment: Deployment, nodes: Nodes, node: str
) -> None:
    (other,) = {"ascend-0", "ascend-1"} - {node}
    nodes.drain(node)
    assert place(outcome(serving, numbered(deployment, 1))) == [other]
    serving.delete("echo.r1")
    nodes.quarantine(node)
    assert place(outcome(serving, numbered(deployment, 2))) == [other]


@pytest.mark.chaos
def test_a_node_in_quarantine_is_used_where_no_other_can_hold_it_and_a_drained_one_never(
    serving: RayServing, deployment: Deployment, nodes: Nodes
) -> None:
    both = replace(deployment.endpoint, replicas=2)
    nodes.quarantine("ascend-0")
    said = outcome(serving, numbered(deployment, 3, endpoint=both))
    assert sorted(place(said)) == ["ascend-0", "ascend-1"]
    serving.delete("echo.r3")
    assert wait(lambda: not serving.live(), SECONDS)

    nodes.drain("ascend-0")
    drained = numbered(deployment, 4, endpoint=both)
    serving.start(drained)
    told: list[Message] = []
    assert wait(lambda: bool(told.extend(serving.poll(drained.key)) or told), SECONDS)
    reason = "can give 2 x (0.5 CPU, 1 NPU) on no nodes but 'ascend-0', not to be used"
    assert told == [Waiting(f"pool 'ascend' {reason}")]
    nodes.unused = {}
    assert wait(lambda: bool(told.extend(serving.poll(drained.key)) or told[2:]), SECONDS)
    assert wait(
        lambda: bool(told.extend(serving.poll(drained.key)) or isinstance(told[-1], Succeeded)),
        SECONDS,
    )


class Client:
    """One that asks without a pause, where the store says that replicas answer."""

    def __init__(self, store: MemoryEndpoints) -> None:
        self._store = store
        self.answers, self.wrong = 0, list[str]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            urls = self._store.replicas().get(("echo", 1), ())
            try:
                self.answers += sum(ask(url, "back") == "back" for url in urls)
            except openai.OpenAIError as error:
                self.wrong.append(repr(error))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.chaos
def test_the_replicas_of_a_drained_node_move_and_no_request_fails(
    serving: RayServing, deployment: Deployment, nodes: Nodes
) -> None:
    nodes.drain("ascend-0")
    assert place(outcome(serving, deployment)) == ["ascend-1"]
    store, told = MemoryEndpoints(), list[str]()
    shares = SharesMoved({1: 100}, "first")
    events = [RevisionAdded(1, deployment), RevisionReady(1), shares]
    store.follow(store.endpoint("echo"), events, 1.0)
    reconciler = Reconciler((store, serving, wiring.clock()), told.append, lambda *_: None)
    reconciler.reconcile()
    client = Client(store)
    try:
        (before,) = serving.live()["echo.r1"].urls
        nodes.drain("ascend-1")

        def moved() -> bool:
            reconciler.reconcile()
            return bool(told) and "has moved" in told[-1]

        assert wait(moved, SECONDS), told
        (after,) = serving.live()["echo.r1"].urls
        assert after != before
        assert serving.live()["echo.r1"].misplaced == ()
        assert wait(lambda: reconciler.reconcile() and not listens(before), SECONDS)
        answers = client.answers
        assert wait(lambda: client.answers > answers + 10, SECONDS), "it serves on"

        nodes.drain("ascend-0")  # and back, by the same way
        told.clear()
        assert wait(moved, SECONDS), told
        assert serving.live()["echo.r1"].urls != (after,)
    finally:
        client.end()
    assert client.wrong == []


def listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    return access.answers(host, int(port), 1.0)


def written(home: Path, words: str = VALUE) -> list[str]:
    """Return the files of the cluster in which words stand, such as the value of the secret."""
    files = (file for root in (home, machine.root(home)) for file in root.rglob("*"))
    return [
        str(file)
        for file in files
        if file.is_file() and not file.is_symlink() and words.encode() in file.read_bytes()
    ]


def logged(home: Path, words: str) -> bool:
    return bool(written(home, words))


def command_lines() -> list[str]:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return lines


SECRETS = {"HF_TOKEN": "A_SECRET"}


def test_the_engine_of_a_class_has_its_secrets_and_no_log_has_them(
    serving: RayServing, deployment: Deployment, home: Path
) -> None:
    endpoint = replace(deployment.endpoint, engine="telling.Engine")
    told = numbered(deployment, 5, endpoint=endpoint, secrets=SECRETS)
    place(outcome(serving, told))
    assert wait(lambda: all(logged(home, f"it {w} ***") for w in ("prints", "writes")), SECONDS)
    assert logged(home, "it logs ***")
    assert written(home) == []
    serving.delete("echo.r5")

    fails = numbered(told, 6, secrets={**SECRETS, "FAILS": "YES"})
    failed = outcome(serving, fails)[-1]
    assert isinstance(failed, Failed)
    assert "the hub refuses ***" in failed.failure.evidence
    assert VALUE not in repr(failed)
    assert written(home) == []


def test_an_engine_server_has_its_secrets_and_no_log_or_command_line_has_them(
    serving: RayServing, deployment: Deployment, home: Path, tmp_path: Path
) -> None:
    words = (str(tmp_path / "server.py"), str(FAKE), "{port}", "{model}", "{name}", "well")
    spec = EngineSpec(
        name="fake",
        command=("{python}", *words),
        key_variable="FAKE_KEY",
        figures=MetricNames(running="running", waiting="waiting", tokens=("tokens",)),
        makers={"cpu": Maker()},
    )
    endpoint = replace(deployment.endpoint, engine="fake", server=spec)
    place(outcome(serving, numbered(deployment, 7, endpoint=endpoint, secrets=SECRETS)))
    (engine,) = (p for p in psutil.process_iter() if str(tmp_path / "server.py") in words_of(p))
    assert engine.environ()["HF_TOKEN"] == VALUE
    assert wait(lambda: logged(home, "it prints ***"), SECONDS)
    assert written(home) == []
    assert not any(VALUE in line for line in command_lines())


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_what_ray_and_serve_tell_of_a_deployment_has_no_secret(deployment: Deployment) -> None:
    asked = replace(deployment, secrets=SECRETS)
    known = DeploymentPorts(
        wiring.fetch_model, wiring.clock, lambda *_: {}, {"A_SECRET": VALUE}.get
    )
    bound = operations.application(ServeRequest(asked, "echo.r1", 1), known, "")._bound_deployment
    assert VALUE not in f"{bound.ray_actor_options} {bound._deployment_config}"
    assert "env_vars" not in str(bound.ray_actor_options)


def test_a_secret_without_a_value_is_told_before_anything_is_placed(
    serving: RayServing, deployment: Deployment
) -> None:
    failed = outcome(serving, numbered(deployment, 8, secrets={"HF_TOKEN": "/absent"}))[-1]
    assert isinstance(failed, Failed)
    assert failed.failure.kind is FailureKind.SET_UP
    lacking = "secrets without a value on the host that deploys 'echo.r8': HF_TOKEN by /absent"
    assert failed.failure.evidence == lacking
