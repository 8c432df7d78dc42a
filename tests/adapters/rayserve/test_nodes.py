"""Replicas over two nodes of a real cluster: an engine that leads, and one that follows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from ray.util.placement_group import placement_group_table  # noqa: TID251 - the judge

from orchestrator import wiring
from orchestrator.adapters.raycluster import access, managed_ray
from orchestrator.adapters.rayserve import RayServing
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.engines import EngineSpec, Maker, MetricNames, Nodes, Parallel
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Endpoint, Needs
from orchestrator.messages import Failed, Message, Placed, PoolState, Succeeded
from orchestrator.supervisor.record import wait
from tests.adapters.rayserve.clients import model_of, outcome
from tests.build import accelerator
from tests.clusters import cluster_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

POOL = Pool(
    name="ascend",
    accelerator=accelerator(name="ascend-910c", resource="NPU"),
    nodes=3,
    devices_per_node=2,
    emulation=Emulation(),
)
SECONDS = 60.0
FAKE = Path(__file__).with_name("fake_nodes.py")
SPEC = EngineSpec(
    name="fake",
    command=("{python}", str(FAKE), "{port}", "{model}", "{name}"),
    key_variable="FAKE_KEY",
    figures=MetricNames(running="running", waiting="waiting", tokens=("tokens",)),
    parallel=Parallel(tensor="tp"),
    nodes=Nodes(
        options={
            "nodes": "{nodes}",
            "rank": "{rank}",
            "leader": "{leader}",
            "at": "{leader_port}",
            "second": "{leader_port_2}",
        },
        environment={"FAKE_INTERFACE": "{interface}"},
        following={"quiet": True},
    ),
    makers={"cpu": Maker()},
    grace=5.0,
)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with cluster_of({"ascend": POOL}) as folder:
        yield folder


@pytest.fixture(scope="module")
def serving(home: Path) -> RayServing:
    found = managed_ray.find(home)
    assert found is not None
    return RayServing(found.address, wiring.fetch_model, wiring.clock)


def deployment_of(folder: Path) -> Deployment:
    """Return the deployment of a model that is stored in a folder, over two nodes."""
    store = wiring.artifact_store(folder.as_uri())
    model = store.scratch("model")
    (model / "config.json").write_text("{}")
    return Deployment(
        run="r1",
        stage="serve",
        attempt=1,
        endpoint=Endpoint(name="chat", engine="fake", drain=1.0),
        model=store.commit(model, "model", {}),
        format="bf16",
        pool=POOL,
        needs=Needs(cpus=0.5, devices=4),
        packages=("jobs",),
        code=(),
        storage=folder.as_uri(),
        token="secret",  # noqa: S106 - a test's own
    )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deployment_of(tmp_path_factory.mktemp("storage"))


def numbered(deployment: Deployment, number: int, mode: str = "well") -> Deployment:
    spec = replace(SPEC, command=(*SPEC.command, mode))
    endpoint = replace(deployment.endpoint, server=spec)
    return replace(deployment, endpoint=endpoint, attempt=number, revision=number)


@pytest.fixture
def deployed(
    serving: RayServing, deployment: Deployment
) -> Iterator[Callable[[int], list[Message]]]:
    """Deploy a revision of a number, which is taken away in the end."""
    numbers: list[int] = []

    def deploy(number: int) -> list[Message]:
        numbers.append(number)
        return outcome(serving, numbered(deployment, number))

    yield deploy
    for number in numbers:
        if f"chat.r{number}" in serving.live():
            serving.delete(f"chat.r{number}")
        assert wait(lambda n=number: f"chat.r{n}" not in serving.live(), SECONDS)
    assert wait(lambda: not parts(), SECONDS), parts()


def parts() -> list[psutil.Process]:
    """Return the processes of engines, that which leads first."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if str(FAKE) in words:
            found.append((words[words.index("--rank") + 1], process))
    return [process for _, process in sorted(found, key=lambda pair: pair[0])]


def actor_of(engine: psutil.Process) -> psutil.Process:
    """Return the process that started an engine."""
    parent = engine.parent()
    assert parent is not None
    return parent


def node_of(engine: psutil.Process) -> int:
    """Return the process of the node on which an engine was started."""
    return actor_of(engine).ppid()


def groups() -> list[str]:
    """Return the names of the placement groups that are there."""
    table = placement_group_table()
    return [group["name"] for group in table.values() if group["state"] != "REMOVED"]


def answers(serving: RayServing, number: int) -> bool:
    urls = serving.live()[f"chat.r{number}"].urls
    return bool(urls) and bool(model_of(urls[0]))


def listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    return access.answers(host, int(port), 1.0)


def test_a_replica_is_on_two_nodes_and_leaves_nothing_on_either(
    serving: RayServing, deployed: Callable[[int], list[Message]]
) -> None:
    said = deployed(1)
    assert isinstance(said[-1], Succeeded), said
    nodes = [node for message in said if isinstance(message, Placed) for node in message.nodes]
    assert len({*nodes}) == len(nodes) == POOL.nodes_of(4), nodes
    found = serving.live()["chat.r1"]
    assert (found.pool, found.state, len(found.urls)) == ("ascend", PoolState.UP, 1)
    leader, follower = parts()
    assert node_of(leader) != node_of(follower)
    assert "--quiet" in follower.cmdline()
    assert follower.environ()["FAKE_INTERFACE"].startswith("lo"), "all nodes are on this host"
    (url,) = found.urls
    assert model_of(url)
    assert groups()

    serving.delete("chat.r1")
    assert wait(lambda: "chat.r1" not in serving.live(), SECONDS)
    assert wait(lambda: not parts(), SECONDS)
    assert wait(lambda: not groups(), SECONDS)
    assert not listens(url)


@pytest.mark.parametrize("which", ["engine", pytest.param("actor", marks=pytest.mark.chaos)])
def test_a_replica_whose_follower_dies_is_replaced_and_answers_again(
    serving: RayServing, deployed: Callable[[int], list[Message]], which: str
) -> None:
    number = 2 if which == "engine" else 3
    assert isinstance(deployed(number)[-1], Succeeded)
    before = parts()
    began = time.monotonic()
    (before[1] if which == "engine" else actor_of(before[1])).kill()

    def replaced() -> bool:
        now = parts()
        return len(now) == len(before) and not {*now} & {*before} and answers(serving, number)

    assert wait(replaced, SECONDS)
    print(f"a follower's {which} killed: answered anew after {time.monotonic() - began:.1f} s")
    assert node_of(parts()[0]) != node_of(parts()[1])


@pytest.mark.chaos
def test_a_replica_that_is_killed_takes_its_followers_with_it(
    serving: RayServing, deployed: Callable[[int], list[Message]]
) -> None:
    assert isinstance(deployed(4)[-1], Succeeded)
    leader, follower = parts()
    of_it = [leader, follower, actor_of(follower), *follower.children()]
    assert len(of_it) == 4
    began = time.monotonic()
    actor_of(leader).kill()
    assert wait(lambda: not any(map(alive, of_it)), SECONDS)
    print(f"the replica killed: its follower gone after {time.monotonic() - began:.1f} s")
    assert wait(lambda: len(parts()) == 2 and answers(serving, 4), SECONDS), "another is there"


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_new_weights_are_served_by_all_nodes(
    serving: RayServing, deployment: Deployment, deployed: Callable[[int], list[Message]]
) -> None:
    assert isinstance(deployed(5)[-1], Succeeded)
    store = wiring.artifact_store(deployment.storage)
    folder = store.scratch("other")
    (folder / "config.json").write_text('{"other": 1}')
    other = replace(numbered(deployment, 5), model=store.commit(folder, "other", {}), version="2")
    (replica,) = serving.weights(other)
    serving.update(other, replica)
    served = {process.cmdline()[3] for process in parts()}
    (url,) = serving.live()["chat.r5"].urls
    assert served == {model_of(url)}
    assert Path(model_of(url), "config.json").read_text() == '{"other": 1}'
    assert serving.weights(other)[replica].version == "2"


def test_a_follower_that_does_not_start_is_told_by_its_own_words_and_node(
    serving: RayServing, deployment: Deployment
) -> None:
    said = outcome(serving, numbered(deployment, 6, "lame"))
    assert isinstance(said[-1], Failed)
    told = said[-1].failure.evidence
    nodes: Sequence[str] = ("ascend-0", "ascend-1", "ascend-2")
    why = "with status 1: RuntimeError: no kernel on the second node"
    assert told in [f"engine 'fake' ended on node {name!r} {why}" for name in nodes], told
    assert wait(lambda: not parts() and not groups(), SECONDS)


def test_more_nodes_than_the_pool_has_are_told_at_once(
    serving: RayServing, deployment: Deployment
) -> None:
    asked = replace(numbered(deployment, 7), needs=Needs(cpus=0.5, devices=8))
    said = outcome(serving, asked)
    assert isinstance(said[-1], Failed)
    assert said[-1].failure.kind is FailureKind.PLACEMENT
    assert said[-1].failure.evidence == (
        "the nodes of pool 'ascend' can never give 1 x 4 nodes with (0.5 CPU, 2 NPU)"
    )


@pytest.mark.chaos
def test_a_replica_whose_follower_s_node_is_lost_is_replaced_on_others(
    serving: RayServing, home: Path, deployed: Callable[[int], list[Message]]
) -> None:
    said = deployed(8)
    (placed,) = (message for message in said if isinstance(message, Placed))
    before = parts()
    began = time.monotonic()
    found = managed_ray.find(home)
    assert found is not None
    lost = placed.nodes[1]
    raylet = psutil.Process(node_of(before[1]))
    assert raylet.parent() == psutil.Process(found.processes[lost]), "the first leads"
    raylet.kill()

    def replaced() -> bool:
        now = parts()
        return len(now) == len(before) and not {*now} & {*before} and answers(serving, 8)

    assert wait(replaced, SECONDS)
    print(f"its node killed: answered anew after {time.monotonic() - began:.1f} s")
    assert not {node_of(one) for one in parts()} & {raylet.pid}
