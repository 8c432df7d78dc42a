"""An engine server of which a process follows on another node, which is a stand-in here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.rayserve.engine_launch import EngineStartError, free_ports
from orchestrator.adapters.rayserve.supervision import Supervision
from orchestrator.supervisor.record import wait
from tests.adapters.rayserve.test_supervision import SECONDS, deployment, ended

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "v1"
    folder.mkdir()
    return folder


class Elsewhere:
    """What follows on another node, without one: it is told how that ended."""

    count = 1

    def __init__(self) -> None:
        self.how, self.seen, self.did = "", True, list[str]()

    def start(self, folder: Path, leader: str, ports: tuple[int, ...]) -> None:
        assert leader == "127.0.0.1"
        assert len({*ports}) == 2
        self.did.append(f"start {folder.name}")

    def ended(self) -> str:
        return self.how

    def see(self, folder: Path) -> bool:
        assert folder.is_dir()
        return self.seen

    def stop(self, grace: float) -> None:
        self.did.append(f"stop {grace:g}")


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def spread(model: Path, elsewhere: Elsewhere) -> Iterator[Supervision]:
    supervision = Supervision(
        deployment("well", updates=True), model, "127.0.0.1", followers=elsewhere
    )
    yield supervision
    supervision.stop()


def test_an_engine_is_broken_when_what_follows_it_on_another_node_ends(
    spread: Supervision, elsewhere: Elsewhere
) -> None:
    spread.start()
    elsewhere.how = "on node 'b' by SIGKILL: too much"
    assert wait(lambda: bool(spread.fault), SECONDS)
    assert spread.fault == "engine 'fake' is broken: it ended on node 'b' by SIGKILL: too much"
    spread.stop()
    assert elsewhere.did == ["start v1", "stop 0"]


def test_a_start_that_fails_on_another_node_is_told_with_that_and_ended_on_all(
    spread: Supervision, elsewhere: Elsewhere
) -> None:
    elsewhere.how = "on node 'b' with status 1: no kernel"
    with pytest.raises(EngineStartError, match="engine 'fake' ended on node 'b' with status 1"):
        spread.start()
    assert elsewhere.did == ["start v1", "stop 0"]
    assert spread._process is not None
    assert ended(spread._process.pid)


def test_weights_that_lie_elsewhere_on_other_nodes_are_taken_by_a_new_start_of_all(
    spread: Supervision, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    spread.start()
    (tmp_path / "v2").mkdir()
    assert spread._process is not None
    before = spread._process.pid
    spread.update(tmp_path / "v2", "v2")
    assert spread._process.pid == before, "it reads them where it runs"
    elsewhere.seen = False
    (tmp_path / "v3").mkdir()
    spread.update(tmp_path / "v3", "v3")
    assert spread._process.pid != before
    assert elsewhere.did == ["start v1", "stop 2", "start v3"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ports_are_free_and_none_is_another(host: str) -> None:
    try:
        assert len({*free_ports(host, 3)}) == 3
    except OSError:
        assert host == "::1", "a host may lack IPv6"
