"""A replica is as well as its engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.adapters.rayserve.engine_server import EngineServer
from orchestrator.adapters.rayserve.replica import Replica


def with_engine(**engine: Any) -> Any:
    return SimpleNamespace(_engine=SimpleNamespace(**engine))


def test_a_replica_is_well_while_its_engine_is_or_says_nothing_of_it() -> None:
    asked: list[str] = []
    Replica.check_health(with_engine(health=lambda: asked.append("health") or ""))
    assert asked == ["health"]
    silent = with_engine(answers=lambda: asked.append("answers"))
    Replica.check_health(silent)
    assert asked == ["health"], "and nothing else is asked of one that has no health"


def test_an_engine_that_can_not_serve_has_its_replica_replaced() -> None:
    dead = with_engine(health=lambda: "its thread is gone")
    with pytest.raises(RuntimeError, match="the engine is broken: its thread is gone"):
        Replica.check_health(dead)


def test_a_broken_engine_server_has_its_replica_replaced() -> None:
    of: Any = SimpleNamespace(_supervision=SimpleNamespace(fault="engine 'vllm' is broken"))
    with pytest.raises(RuntimeError, match="engine 'vllm' is broken"):
        EngineServer.check_health(of)
    of._supervision.fault = ""
    assert EngineServer.check_health(of) is None  # type: ignore[func-returns-value]
