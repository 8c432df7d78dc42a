"""Pools, verdicts, sums and this machine from Python; and what a pipeline is built of."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import orchestrator as o
from orchestrator import wiring
from orchestrator.core.endpoints.metering import Usage, day_of
from orchestrator.core.errors import ConfigError, NotFoundError
from orchestrator.core.runs.states import (
    CancelRequested,
    RunCancelled,
    RunStarted,
    StageCancelled,
)
from tests.build import header, plan, stage
from tests.conftest import CONFIGURED

# What the parser, or a live update, fills in.
FILLED_IN = {"EngineSpec", "Weights"}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in CONFIGURED:
        monkeypatch.delenv(name, raising=False)


def test_a_pool_or_a_node_is_drained_and_used_again() -> None:
    o.drain("nvidia", reason="new firmware")
    o.drain("ascend", node="n7", reason="a fan")
    pools = o.pools()
    assert pools["nvidia"].devices > 0
    assert pools.status == {"nvidia": "being emptied: new firmware", "ascend": "not started"}
    assert [(node.pool, node.node, node.reason) for node in pools.unused] == [
        ("ascend", "n7", "a fan")
    ]
    assert pools.verdicts == {"nvidia": {}, "ascend": {}}
    assert "new firmware" in repr(pools)
    o.undrain("nvidia")
    o.undrain("ascend", node="n7")
    again = o.pools()
    assert (again.status["nvidia"], again.unused) == ("not started", [])
    for wrong in (lambda: o.drain("nvida", reason="x"), lambda: pools["nvida"]):
        with pytest.raises(NotFoundError, match="did you mean 'nvidia'"):
            wrong()


def test_what_endpoints_were_used_for_is_summed_up() -> None:
    store = wiring.database(wiring.home())
    day = day_of(wiring.clock().now())
    for key, count in (("ann", 2), ("bob", 3)):
        used = Usage(day=day, key=key, endpoint="chat", revision="r1", pool="a", requests=count)
        store.add_usage("gateway", [used], [])
    (sums,) = o.cost(["endpoint"]).used
    assert (sums.endpoint, sums.key, sums.requests) == ("chat", "", 5)
    assert len(o.cost(days=1.0).used) == 2
    with pytest.raises(ConfigError, match="'colour' is nothing to sort by"):
        o.cost(["colour"])


def test_this_machine_is_checked_and_nothing_is_removed_from_an_empty_home() -> None:
    checks = {check.check: check.status for check in o.doctor()}
    assert (checks["python"], checks["home"], checks["cluster"]) == ("ok", "ok", "ok")
    assert o.gc(["points"]).runs == 0
    assert o.gc(["points", "runs"], dry_run=True) == ["nothing is to be removed"]
    with pytest.raises(
        ConfigError, match=r"'logs' is nothing to remove; kinds: artifacts, caches"
    ):
        o.gc(["logs"])


def test_a_dry_run_says_what_would_be_removed_and_leaves_it() -> None:
    store, at = wiring.database(wiring.home()), wiring.clock().now() - 40 * 86_400
    config = {"tracking": {"enabled": False}}
    store.create(replace(header(plan(stage("s")), "old"), config=config, created=at), at)
    events = (RunStarted(1), CancelRequested("by hand"), StageCancelled("s"), RunCancelled())
    store.append("old", 1, events, at)
    (line,) = o.gc(["runs"], newest=0, resumable=True, dry_run=True)
    assert line.startswith("of run old (cancelled, 40 days ago): ")
    assert [known.run for known in store.runs()] == ["old"]
    assert o.gc(["runs"], newest=0, resumable=True).runs == 1


def test_a_pool_without_chips_is_not_qualified() -> None:
    with pytest.raises(ConfigError, match="pool 'host' has no chips"):
        o.qualify("host", "fleet=r2")


def test_whatever_a_pipeline_or_a_fleet_is_built_of_is_exported() -> None:
    parts = {part.__name__: part for part in _parts(o.Pipeline)} | {
        part.__name__: part for part in _parts(o.Fleet)
    }
    for name in parts.keys() - FILLED_IN:
        assert getattr(o, name) is parts[name], name
    assert {"Watch", "Scale", "Emulation", "Action", "FailureKind"} <= parts.keys()


def _parts(kind: Any) -> Iterator[type]:
    """Yield the classes that values of `kind` are made of, and itself."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        yield kind
    elif is_dataclass(kind) and isinstance(kind, type):
        yield kind
        hints = get_type_hints(kind)
        if kind.__name__ not in FILLED_IN:
            for field in fields(kind):
                yield from _parts(hints[field.name])
    else:
        for part in get_args(kind):
            yield from _parts(part)


def test_what_is_exported_is_there() -> None:
    assert all(getattr(o, name) is not None for name in o.__all__)
    assert o.LiveEndpoint is not o.Endpoint
    modules = {module.name for module in pkgutil.iter_modules(o.__path__)}
    assert modules.isdisjoint(o.__all__), "a module that is imported hides what has its name"
