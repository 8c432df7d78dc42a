"""The real training job on an emulated chip: the same numbers, failures where they would be."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import pytest

from jobs.pretraining import pretrain
from tests.emulation.attempt import asked, gang, run, told
from tests.emulation.interpreter import Interpreter
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT, SMALL

pytestmark = pytest.mark.timeout(300)  # imports, mostly, which a busy machine stretches
QUICK = {**SHORT, "steps": 12, "validate_every": 0, "checkpoint_every": 4}
TIMEOUT = {"what": "raise", "signature": "hccl_timeout", "at_step": 9, "rank": 1}


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory, sums: Path) -> list[float]:
    """The losses of one undisturbed worker on the CPU."""
    ctx = LocalContext(folder=tmp_path_factory.mktemp("cpu"), inputs={"data": sums})
    pretrain(ctx, **QUICK)
    return ctx.series("train/loss")


def test_one_worker_trains_resumes_and_evaluates_on_the_device(
    npu: Interpreter, tmp_path: Path, sums: Path, on_cpu: list[float]
) -> None:
    code = f"""
install()
from jobs.evaluation.held_out import evaluate
from jobs.pretraining import pretrain
from tests.jobs.local_context import EMULATED, LocalContext
hardware = replace(EMULATED, device="npu:0", backend="hccl")
def context(name, stop=None, **inputs):
    paths = {{key: Path(path) for key, path in inputs.items()}}
    folder = Path({str(tmp_path)!r}) / name
    return LocalContext(folder=folder, inputs=paths, hardware=hardware, stop_after=stop)
data = {str(sums)!r}
losses = []
for stop in (6, None):
    ctx = context("train", stop, data=data)
    try:
        pretrain(ctx, **{QUICK!r})
    except InterruptedError:
        pass
    losses += [(n, values["train/loss"]) for n, values in ctx.points if "train/loss" in values]
measured = evaluate(context("eval", data=data, model=ctx.output), examples=8, max_tokens=3)
result = [losses, measured["eval/loss"], sorted(path.name for path in ctx.output.iterdir())]
"""
    losses, measured, files = npu(code)
    steps = [step for step, _ in losses]
    assert steps == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10, 11, 12]
    assert [loss for _, loss in losses] == pytest.approx([on_cpu[s - 1] for s in steps], rel=1e-5)
    assert 0 < measured < 10
    assert "model.safetensors" in files


@pytest.mark.slow
def test_a_gang_trains_on_the_device_over_the_chips_own_backend_until_that_breaks(
    tmp_path: Path, sums: Path, on_cpu: list[float]
) -> None:
    emulation = {"device": "npu", "backend": "hccl", "faults": [TIMEOUT]}
    first, second = gang(tmp_path, sums, emulation, QUICK)
    assert second.failure is not None
    assert second.failure["step"] == 9, second.failure["detail"]
    assert second.failure["kind"] == "interconnect"
    assert "EI0002: " in second.failure["detail"]
    assert "in do" in second.failure["detail"]  # out of a collective, and not of the context
    assert first.failure is not None  # the other side of the link is gone
    assert sorted(first.losses) == list(range(1, 10))
    assert list(first.losses.values()) == pytest.approx(on_cpu[:9], rel=1e-4)


@pytest.mark.slow
def test_a_gang_qualifies_over_a_backend_that_reduces_no_bytes(tmp_path: Path, sums: Path) -> None:
    what = {"model": SMALL, "steps": 2, "soak_seconds": 0.1, "quick": True}
    emulation = {"device": "npu", "backend": "hccl"}
    job = "jobs.qualification.all_chips.qualify_gang"
    told = gang(tmp_path, sums, emulation, what, job=job)
    assert [one.failure for one in told] == [None, None]


def test_steps_that_are_poisoned_in_a_row_are_a_divergence(tmp_path: Path, sums: Path) -> None:
    faults = [{"what": "nan", "at_step": step} for step in (5, 6, 7)]
    only = told(run(asked(tmp_path, sums, {"faults": faults}, QUICK)))
    assert only.failure is not None
    assert (only.failure["kind"], only.failure["step"]) == ("numerical_divergence", 8)
    assert sorted(only.losses) == [1, 2, 3, 4, 5]


def test_a_poisoned_step_is_left_out(tmp_path: Path, sums: Path) -> None:
    emulation = {"faults": [{"what": "nan", "at_step": 5}]}
    only = told(run(asked(tmp_path, sums, emulation, QUICK)))
    assert only.failure is None
    assert sorted(only.losses) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert all(map(isfinite, only.losses.values()))


def test_a_gap_stops_the_job_at_the_operator(npu: Interpreter, tmp_path: Path, sums: Path) -> None:
    emulation = {"device": "own", "unsupported": ["aten::silu"]}
    what = asked(tmp_path, sums, emulation, QUICK)
    only = told(npu(f"from tests.emulation.attempt import run\nresult = run({what!r})"))
    assert only.failure is not None
    assert only.failure["kind"] == "unsupported_operator"
    assert only.failure["evidence"].startswith(
        "NotImplementedError: Could not run 'aten::silu.out' with arguments from the 'npu' backend"
    )
