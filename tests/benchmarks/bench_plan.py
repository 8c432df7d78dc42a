"""Planning and deciding, which must not be felt however large the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from graphlib import TopologicalSorter
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from rich.console import Console

from orchestrator import wiring
from orchestrator.cli import plan as verb
from orchestrator.core.runs.decide import decide
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.states import RunStarted
from orchestrator.display import policies
from tests.benchmarks.table import Row, compare, seconds
from tests.build import header, plan, stage

STAGES = 10_000
TURN_STAGES = 500
WRITTEN = 400


def rows() -> list[Row]:
    """Plan many stages, against sorting their bare graph; decide once about some hundred."""
    stages = [stage(f"s{index}", *_before(index)) for index in range(STAGES)]
    graph = {one.name: one.upstream for one in stages}
    planning = seconds(lambda: plan(*stages), times=3)
    sorting = seconds(lambda: [*TopologicalSorter(graph).static_order()], times=3)
    run = apply(begin(header(plan(*stages[:TURN_STAGES]))), RunStarted(1), 0.0)
    deciding = seconds(lambda: decide(run, 0.0))
    name = f"plan {STAGES:,} stages, against sorting their graph"
    return [
        compare(name, planning, sorting, goal="ours < 1 s"),
        Row(name=f"decide about {TURN_STAGES} stages", ours=deciding * 1e3, unit="ms"),
        *_written("spelled out", _spelled_out),
        *_written("from a defaults list", _from_defaults),
    ]


def _before(index: int) -> list[str]:
    return [f"s{before}" for before in (index - 1, index - 7) if before >= 0]


def _written(how: str, text: Callable[[int], str]) -> list[Row]:
    """Plan and print pipelines that are written as YAML: twice the stages, twice the time."""
    with TemporaryDirectory() as folder:
        half = _planning(Path(folder), WRITTEN, text)
        whole = _planning(Path(folder), 2 * WRITTEN, text)
        reading = seconds(lambda: yaml.safe_load(text(WRITTEN)), times=3)
    name = f"plan {WRITTEN} stages of a YAML, {how}"
    return [
        compare(f"{name}, against reading it", half, reading, goal="ours < 3 s"),
        compare(f"{name}: twice as many against as many", whole, half, goal="ratio < 2.5"),
    ]


def _planning(folder: Path, count: int, text: Callable[[int], str]) -> float:
    (folder / "pipeline").mkdir(exist_ok=True)
    (folder / "pipeline" / f"many{count}.yaml").write_text(text(count))

    def act() -> None:
        _, made = wiring.planned([f"pipeline=many{count}"], folder)
        out = Console(file=StringIO(), width=200)
        verb.show(made, out.print)
        out.print(policies.table(made))

    return seconds(act, times=3)


def _spelled_out(count: int) -> str:
    needs = {"devices": 0}
    stages = {
        name: {
            "job": "jobs.noop.count",
            "role": "prepare",
            "params": {"to": 3},
            "needs": needs,
            "after": before,
        }
        for name, before in _chain(count).items()
    }
    return yaml.dump({"name": "many", "stages": stages}, Dumper=_Plain, sort_keys=False)


def _from_defaults(count: int) -> str:
    chain = _chain(count)
    defaults = [*({f"/job@stages.{name}": "noop"} for name in chain), "_self_"]
    stages = {name: {"after": before} for name, before in chain.items()}
    return yaml.dump({"defaults": defaults, "name": "many", "stages": stages}, sort_keys=False)


def _chain(count: int) -> dict[str, list[str]]:
    return {f"s{index}": _before(index) for index in range(count)}


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True
