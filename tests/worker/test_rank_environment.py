"""What the environment of a worker says while its attempt runs, and after it."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from orchestrator.core.spec.stages import Needs
from orchestrator.worker import rank_environment
from tests.clusters import request

FIRST, SECOND = "ORCHESTRATOR_TEST_FIRST", "ORCHESTRATOR_TEST_SECOND"


def said(name: str) -> str | None:
    return os.environ.get(name)  # noqa: TID251 - what jobs read is set there


def test_attempts_that_overlap_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FIRST, "before")
    monkeypatch.delenv(SECOND, raising=False)
    one = rank_environment.applied({FIRST: "one", SECOND: "one"})
    other = rank_environment.applied({FIRST: "other"})
    one.__enter__()
    other.__enter__()
    assert (said(FIRST), said(SECOND)) == ("other", "one")
    one.__exit__(None, None, None)
    assert (said(FIRST), said(SECOND)) == ("other", None)
    other.__exit__(None, None, None)
    assert said(FIRST) == "before"


def test_a_worker_is_told_its_place_as_torchrun_says_it() -> None:
    asked = replace(
        request("train", "gang", needs=Needs(workers=5)),
        node_ranks=(0, 0, 1, 1, 1),
        env={"HCCL_CONNECT_TIMEOUT": "600"},
        secrets={"HF_TOKEN": "hidden"},
    )
    assert rank_environment.variables(asked, 3, "[fd00::1]:4000") == {
        "RANK": "3",
        "WORLD_SIZE": "5",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "3",
        "NODE_RANK": "1",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "fd00::1",
        "MASTER_PORT": "4000",
        "HCCL_CONNECT_TIMEOUT": "600",
        "HF_TOKEN": "hidden",
    }


def test_a_gang_of_one_has_a_port_of_its_own() -> None:
    told = rank_environment.variables(request("train", "alone"), 0, None)
    assert told["MASTER_ADDR"] == "127.0.0.1"
    assert int(told["MASTER_PORT"]) > 0
    assert (told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"]) == ("1", "1")
