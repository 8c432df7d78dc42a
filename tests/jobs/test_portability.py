"""A training goes from one gang to another of another size, and nobody can tell."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jobs.pretraining import pretrain
from orchestrator.adapters.artifacts import FsspecArtifactStore
from tests.jobs import gangs_in_turn
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT
from tests.jobs.scripts import printed_by

PARAMS = {**SHORT, "steps": 32, "checkpoint_every": 8, "validate_every": 32}


def spec_of(folder: Path, data: Path, sizes: list[int], **changes: Any) -> dict[str, Any]:
    """Return the spec of attempts with so many workers in turn."""
    store = FsspecArtifactStore(str(folder))
    scratch = store.scratch("data")
    shutil.copytree(data, scratch, dirs_exist_ok=True)
    ref = store.commit(scratch, "data", {})
    return {
        "storage": store._base,
        "data": asdict(ref),
        "sizes": sizes,
        "params": {**PARAMS, **changes},
    }


def run(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the attempts in processes; return what they said."""
    return [json.loads(line) for line in printed_by("gangs_in_turn", spec).splitlines()]


def losses_of(said: list[dict[str, Any]]) -> dict[int, float]:
    """Return the loss of each step."""
    points = [told for told in said if told["kind"] == "Points"]
    return {
        told["step"]: told["values"]["train/loss"]
        for told in points
        if "train/loss" in told["values"]
    }


def outcome(said: list[dict[str, Any]], attempt: int) -> dict[str, Any]:
    """Return how rank 0 of an attempt ended."""
    return [told for told in said if (told["attempt"], told["rank"]) == (attempt, 0)][-1]


def failures(said: list[dict[str, Any]], attempt: int) -> set[tuple[str, int]]:
    """Return how the workers of an attempt failed, and at which step.

    The one that leaves breaks the links of the others, who may tell that first.
    """
    told = [t["failure"] for t in said if (t["attempt"], t["kind"]) == (attempt, "Failed")]
    return {(failure["kind"], failure["step"]) for failure in told}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "changes"), [([2, 1, 3], {}), ([4, 1, 2], {"parallel": {"shard": -1}})]
)
def test_gangs_of_other_sizes_in_turn_learn_what_one_learns_undisturbed(
    tmp_path: Path, sums: Path, sizes: list[int], changes: dict[str, Any]
) -> None:
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **PARAMS)
    said = run(spec_of(tmp_path / "store", sums, sizes, **changes))

    for attempt, step in ((1, 8), (2, 16)):
        assert ("drained", step) in failures(said, attempt)
    assert outcome(said, 3)["kind"] == "Succeeded", outcome(said, 3)
    assert [(t["attempt"], t["step"]) for t in said if t["kind"] == "Resumed"] == [(2, 8), (3, 16)]
    losses = losses_of(said)
    assert sorted(losses) == list(range(1, 33))
    undisturbed = alone.series("train/loss")
    assert [losses[step] for step in sorted(losses)] == pytest.approx(undisturbed, rel=1e-3)
    final = outcome(said, 3)["metrics"]
    assert final["validation/loss"] == pytest.approx(alone.series("validation/loss")[-1], rel=1e-3)


def test_one_worker_that_leaves_and_comes_back_is_bit_equal_to_one_that_stays(
    tmp_path: Path, sums: Path
) -> None:
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **PARAMS)
    spec = spec_of(tmp_path / "store", sums, [1, 1, 1])
    said: list[dict[str, Any]] = []
    for attempt in (1, 2, 3):
        gangs_in_turn.ask_to_leave(spec, attempt)
        said += gangs_in_turn.worker(spec, attempt, 0, None)

    assert [(t["attempt"], t["step"]) for t in said if t["kind"] == "Resumed"] == [(2, 8), (3, 16)]
    losses = losses_of(said)
    assert [losses[step] for step in sorted(losses)] == alone.series("train/loss")
    made = (tmp_path / "store/run/train/3/model.safetensors").read_bytes()
    assert made == (alone.output / "model.safetensors").read_bytes()
