"""What one looks at while a model trains: parts of a step, norms, speed, memory, a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.pretraining import pretrain
from jobs.training.profiling import profiled_steps, shortened
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT
from tests.jobs.test_pretraining import close, weights

PARTS = ("data", "forward", "backward", "communication", "optimizer", "checkpoint")
WATCHED: dict[str, Any] = {
    **SHORT,
    "log_every": 5,
    "micro_batch_tokens": 1,  # one row at once
    "profile": {"step": 6, "steps": 2},
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, sums: Path) -> LocalContext:
    ctx = LocalContext(folder=tmp_path_factory.mktemp("watched"), inputs={"data": sums})
    pretrain(ctx, **WATCHED)
    return ctx


def test_each_step_has_the_norm_of_its_gradient(
    watched: LocalContext, undisturbed: LocalContext
) -> None:
    norms = {step: values["train/grad_norm"] for step, values in watched.points if NORM in values}
    assert list(norms) == list(range(1, SHORT["steps"] + 1))
    assert [*norms.values()] == pytest.approx(undisturbed.series(NORM), rel=1e-3)


NORM = "train/grad_norm"


def test_the_parts_of_a_step_are_told_and_fill_most_of_it(watched: LocalContext) -> None:
    for part in PARTS:
        assert watched.series(f"step/{part}_seconds")[-1] > 0
    tokens = [v["train/tokens_per_second"] for _, v in watched.points if "train/lr" in v]
    chips = watched.series("train/tokens_per_second_per_chip")
    assert chips == tokens
    assert all(gb > 0.01 for gb in watched.series("train/memory_gb"))


def test_why_there_is_no_mfu_is_said_once(watched: LocalContext) -> None:
    assert not watched.series("train/mfu")
    assert watched.lines.count("train/mfu is not told: 'H800' is emulated") == 1


def test_micro_batches_in_tokens_change_nothing_but_the_rounding(
    watched: LocalContext, undisturbed: LocalContext
) -> None:
    assert close(weights(watched), weights(undisturbed))
    expected = undisturbed.series("validation/loss")
    assert watched.series("validation/loss") == pytest.approx(expected, rel=1e-4)


def test_a_trace_of_the_steps_is_shown_with_the_attempt(watched: LocalContext) -> None:
    events = json.loads(watched.reports["trace.json"])["traceEvents"]
    names = [event["name"] for event in events]
    assert sum(name.startswith("Optimizer.step") for name in names) == 2
    assert "aten::mm" in names
    assert any("steps up to 7 are traced" in line for line in watched.lines)


def test_the_longest_events_of_a_trace_are_kept_where_not_all_fit() -> None:
    events = [{"ph": "X", "name": f"e{n}", "ts": n, "dur": n, "args": {}} for n in range(100)]
    text, missing = shortened(events, most=1000)
    assert len(text) <= 1000
    kept = json.loads(text)["traceEvents"]
    assert len(kept) + missing == 100
    assert min(event["dur"] for event in kept) == missing


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"profile": {"at": 3}}, "profile has no field 'at'; it has step, steps"),
        ({"profile": {"steps": 3}}, "profile has no step: say the first one"),
        ({"profile": {"step": 0}}, "steps count from 1"),
        ({"micro_batch_tokens": 0}, "micro_batch_tokens=0: give a whole number, at least 1"),
        ({"micro_batch_tokens": 64, "accumulate": 2}, "both say what a worker takes at once"),
    ],
)
def test_what_can_not_be_is_refused_with_its_value(
    tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        pretrain(LocalContext(folder=tmp_path), **params)
    assert profiled_steps(None) is None
