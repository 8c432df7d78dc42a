"""Each live node of a pool is asked, and each is heard."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.raycluster import access, host_questions, managed_ray
from orchestrator.adapters.raycluster.host_questions import HostAnswer
from orchestrator.core.errors import StorageSetUpError
from orchestrator.core.settings import StorageSettings
from orchestrator.core.spec.hardware import Pool
from tests.build import pool
from tests.clusters import POOLS, cluster_of

pytestmark = pytest.mark.ray
TWO = replace(POOLS["nvidia"], nodes=2)
POOLS_NOW = {"nvidia": TWO, "ascend": POOLS["ascend"], "down": pool("down")}
NODES = [("nvidia", "nvidia-0"), ("nvidia", "nvidia-1"), ("ascend", "ascend-0")]


@pytest.fixture(scope="module", autouse=True)
def _joined() -> Iterator[None]:
    with cluster_of({name: POOLS_NOW[name] for name in ("nvidia", "ascend")}) as home:
        managed = managed_ray.find(home)
        assert managed is not None
        access.connect(managed.address)
        yield


def says(text: str) -> Callable[[Pool], Callable[[], str]]:
    return lambda asked: partial("{} in {}".format, text, asked.name)


def test_each_node_of_each_pool_answers_but_those_that_are_not_to_be_asked() -> None:
    answers = host_questions.ask(POOLS_NOW, says("here"), 60.0, 60.0)
    assert answers == [HostAnswer(name, node, f"here in {name}") for name, node in NODES]
    but = {"nvidia": ["nvidia-0"], "ascend": ["nvidia-1"]}
    answers = host_questions.ask(POOLS_NOW, says("here"), 60.0, 60.0, but)
    assert [(answer.pool, answer.node) for answer in answers] == NODES[1:]


def test_all_nodes_that_cannot_read_the_storage_are_named(tmp_path: Path) -> None:
    storage = StorageSettings(uri=f"memory://{secrets.token_hex(4)}", shared=True)
    settings = replace(wiring.settings(["pipeline=noop", "tracking=none"]), storage=storage)
    said = (
        f"pool 'nvidia' can't use storage.uri '{storage.uri}' on its nodes 'nvidia-0', 'nvidia-1'"
    )
    with pytest.raises(StorageSetUpError, match=said):
        wiring.prove_storage(settings, tmp_path, "run", {"nvidia": TWO}, {})
    with pytest.raises(StorageSetUpError, match="on its node 'nvidia-1': what the"):
        wiring.prove_storage(settings, tmp_path, "run", {"nvidia": TWO}, {"nvidia": ["nvidia-0"]})


def test_silence_is_an_answer_of_those_that_have_begun_alone(tmp_path: Path) -> None:
    asked = {"nvidia": TWO}, lambda _: partial(_never, tmp_path), 0.1
    silent = "it has not answered within 0 s"
    answers = host_questions.ask(*asked, to_begin=60.0)
    assert answers == [HostAnswer(name, node, silent) for name, node in NODES[:2]]
    assert host_questions.ask(*asked, to_begin=0.0) == [], (
        "a node that is busy says nothing by that"
    )
    (tmp_path / "end").touch()


def _never(folder: Path) -> str:
    while not (folder / "end").exists():
        pass
    return ""
