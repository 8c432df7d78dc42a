"""What a command prints, or writes for TensorBoard, can't end it, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.commands import metrics
from jobs.commands.event_files import EventFiles, _masked_checksum
from jobs.commands.metrics import MetricPatterns
from jobs.commands.processes import Line
from orchestrator.core.errors import JobError
from orchestrator.worker.reported import numbers, results, whole
from tests.jobs.local_context import LocalContext


class StrictContext(LocalContext):
    """Takes what the context of an attempt takes."""

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        super().metrics(numbers(values, "metrics"), step=whole(step, "step"))


@pytest.fixture
def ctx(tmp_path: Path) -> StrictContext:
    return StrictContext(folder=tmp_path)


@pytest.mark.parametrize("step", [-1, 2**63, 1e300])
def test_a_step_that_is_none_is_told_once_and_left_out(ctx: StrictContext, step: float) -> None:
    read = MetricPatterns((), ctx)
    for loss in (1.0, 0.5):
        read.read(Line(0, json.dumps({"step": step, "loss": loss})))
    read.read(Line(1, json.dumps({"step": 3, "loss": 0.25})))
    assert ctx.points == [(3, {"loss": 0.25})]
    (told,) = ctx.lines
    assert told.startswith("metrics of a step below 0 or beyond 64 bits are left out: ")


@pytest.mark.parametrize("name", ["", "x" * 251, "\ud83d" * 50, "\0" * 70])
def test_a_name_that_is_none_is_told_once_and_the_others_count(
    ctx: StrictContext, name: str
) -> None:
    read = MetricPatterns((), ctx)
    for step in (1, 2):
        read.read(Line(0, json.dumps({"step": step, "loss": 1.0, name: 2.0})))
    assert ctx.points == [(1, {"loss": 1.0}), (2, {"loss": 1.0})]
    (told,) = ctx.lines
    assert told.startswith("a metric is left out whose name has not 1 to 250 characters: ")
    assert read.last == {"loss": 1.0}


def test_steps_beyond_64_bits_of_a_pattern_end_nothing(ctx: StrictContext) -> None:
    read = MetricPatterns([r"step (?P<step>\d+) loss (?P<loss>\S+)"], ctx)
    read.read(Line(0, f"step {2**70} loss 0.5"))
    assert ctx.points == []


def test_a_pattern_that_fits_no_line_is_told_once_while_it_runs_and_at_the_end(
    ctx: StrictContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, other = r"step (?P<step>\d+) loss (?P<loss>\S+)", r"s=(?P<step>\d+) l=(?P<loss>\S+)"
    read = MetricPatterns([fits, other], ctx)
    read.tell_unmatched()
    read.read(Line(0, "step 3 loss 0.5"))
    read.tell_unmatched()
    assert ctx.lines == []
    monkeypatch.setattr(metrics, "_UNMATCHED_SECONDS", 0.0)
    late = MetricPatterns([fits, other], ctx)
    late.tell_unmatched()  # it has said nothing so far
    late.read(Line(0, "step 3 loss 0.5"))
    for _ in range(2):
        late.tell_unmatched()
    late.tell_unmatched(last=True)
    assert ctx.lines == [
        f"no line so far fits {other!r} of `metrics`: mend it, or leave it out",
        f"no line fits {other!r} of `metrics`: mend it, or leave it out",
    ]
    late.read(Line(0, "s=4 l=0.5"))
    late.tell_unmatched(last=True)
    assert len(ctx.lines) == 2


def test_a_stage_has_no_more_results_than_it_may(ctx: StrictContext) -> None:
    read = MetricPatterns((), ctx)
    for begin in (0, 600):
        values = {f"m{number}": 1.0 for number in range(begin, begin + 600)}
        read.read(Line(0, json.dumps({"step": 1, **values})))
    read.read(Line(0, json.dumps({"step": 2, "m0": 2.0, "m1100": 2.0})))
    assert len(results(read.last, "job")) == 1_000
    assert read.last["m0"] == 2.0
    (told,) = ctx.lines
    assert told == "of more than 1000 metrics the others are no results of the stage: 'm1000'"


def test_what_is_nested_too_deeply_is_a_line_like_others(ctx: StrictContext) -> None:
    MetricPatterns((), ctx).read(Line(0, '{"a":' * 10_000))
    assert ctx.points == []


def test_a_line_too_long_to_be_one_is_told_once(ctx: StrictContext) -> None:
    read = MetricPatterns((), ctx)
    for _ in range(2):
        read.read(Line(0, ('{"step": 1, "note": "' + "x" * 70_000)[:65_536]))
    (told,) = ctx.lines
    assert told.startswith("metrics in a line of 65,536 bytes or more are not read: {")


def record(event: bytes) -> bytes:
    length = len(event).to_bytes(8, "little")
    checks = [_masked_checksum(part).to_bytes(4, "little") for part in (length, event)]
    return length + checks[0] + event + checks[1]


def test_a_negative_step_of_tensorboard_has_its_sign(ctx: StrictContext) -> None:
    scalar = b"\x0a\x04loss\x15" + b"\x00\x00\x80\x3f"
    summary = b"\x0a" + bytes([len(scalar)]) + scalar
    minus_one = b"\xff" * 9 + b"\x01"
    event = b"\x10" + minus_one + b"\x2a" + bytes([len(summary)]) + summary
    files = EventFiles(ctx.folder)
    (ctx.folder / "x.tfevents.1").write_bytes(record(event))
    assert list(files.read()) == [(-1, {"loss": 1.0})]
    read = MetricPatterns((), ctx)
    assert not read.hand_on(-1, {"loss": 1.0})
    assert ctx.lines == ["metrics of a step below 0 or beyond 64 bits are left out: -1"]


def test_the_context_of_an_attempt_refuses_what_is_left_out() -> None:
    for name in ("", "x" * 251, "\ud83d" * 50):
        with pytest.raises(JobError):
            numbers({name: 1.0}, "metrics")
    with pytest.raises(JobError):
        whole(2**63, "step")
