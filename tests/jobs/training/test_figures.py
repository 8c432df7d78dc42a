"""What one looks at while a model trains: parts of a step, norms, speed, memory, a trace."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest
import torch

from jobs.data.dataset import IGNORE, RowBatch, Rows
from jobs.pretraining import pretrain
from jobs.training import model as models
from jobs.training.balance import Balance
from jobs.training.loss import TokenLoss
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.part_times import PartTimes
from jobs.training.process_group import ProcessGroup
from jobs.training.profiling import ProfiledSteps, StepProfiler, profiled_steps, shortened
from jobs.training.step import Done, Stepper
from jobs.training.trainer import Window
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT, SMALL
from tests.jobs.test_pretraining import close, weights
from tests.jobs.training.test_checkpoint import Tokenizer
from tests.jobs.training.test_skipping import Context, trainer_of

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
    assert max(watched.series("step/data_seconds")) < 0.1  # as they are no slow ones
    tokens = [v["train/tokens_per_second"] for _, v in watched.points if "train/lr" in v]
    chips = watched.series("train/tokens_per_second_per_chip")
    assert chips == tokens
    assert all(gb > 0.01 for gb in watched.series("train/memory_gb"))


class LateRows:
    """Rows of a store that takes its time."""

    width = 12
    reads_to_count = False

    def __init__(self, *, counts: float = 0.0, read: float = 0.0) -> None:
        tokens = torch.randint(3, 40, (8, self.width), dtype=torch.int32)
        self.rows, self.late = Rows(tokens, tokens), (counts, read)

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        Event().wait(self.late[0])
        return self.rows.counts(part, pad)

    def read(self, part: torch.Tensor) -> RowBatch:
        Event().wait(self.late[1])
        return self.rows.read(part)


class WithoutShare(ProcessGroup):
    """A worker whose part of a batch has no row."""

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[:0]


@pytest.mark.parametrize(
    ("late", "group"),
    [
        ({"counts": 0.2}, ProcessGroup),
        ({"read": 0.2}, ProcessGroup),
        ({"read": 0.2}, WithoutShare),
    ],
)
def test_every_wait_for_rows_counts_as_that(
    tmp_path: Path, late: dict[str, float], group: type[ProcessGroup]
) -> None:
    model = models.build("llama", SMALL, Tokenizer())
    workers = group(LocalContext(folder=tmp_path))
    stepper = Stepper(
        group=workers,
        wrapped=TokenLoss(model),
        optimizer=optimizer_for(model, OptimizerConfig(), rate=1e-3, device=torch.device("cpu")),
        rows=LateRows(**late),
        pad=0,
        accumulate=1,
        clip=1.0,
        balance=Balance(model, workers, rate=0.0),
    )
    stepper.take(torch.arange(4), 1e-3)
    assert stepper.times.take()["data"] >= 0.2


class Chip:
    """A chip that has done all but the last of what is queued; each part takes 2 ms."""

    made: ClassVar[list[Any]] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            Chip.made.append(self)

        def record(self) -> None: ...

        def query(self) -> bool:
            return self is not Chip.made[-1]

        def elapsed_time(self, end: Any) -> float:
            return 2.0

    @staticmethod
    def synchronize() -> None:
        Chip.made.append(None)


def test_events_of_a_chip_are_read_before_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda _: Chip)
    times = PartTimes(torch.device("cuda"))
    for _ in range(5000):
        with times.part("forward"):
            pass
        assert len(times._events) < 1000
    assert times.take() == {"forward": pytest.approx(10.0)}
    assert times.take() == {}


def test_parts_of_a_step_are_a_mean_over_those_that_are_left_out_too(tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx, steps=4)
    rows = trainer.stepper.rows
    assert isinstance(rows, Rows)
    rows.labels[trainer.order.take(8, 24)] = IGNORE  # steps 2 to 4
    times = trainer.stepper.times
    with times.part("checkpoint"):
        Event().wait(0.2)
    trainer.run()
    assert trainer.last["train/skipped"] == 3
    assert 0.05 <= trainer.last["step/checkpoint_seconds"] < 0.1


def test_a_training_that_logs_no_step_keeps_the_norm_of_the_last_one_alone() -> None:
    norms = [Done(torch.ones(()), torch.tensor(float(n)), tokens=1, learnt=1) for n in range(9)]
    silent, told = Window(logged=False), Window()
    for window in (silent, told):
        for step, done in enumerate(norms):
            window.add(step, done)
    assert silent.read_norms() == {8: 8.0}
    assert told.read_norms() == {step: float(step) for step in range(9)}


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


def test_the_trace_is_no_part_of_the_speed_of_training(tmp_path: Path) -> None:
    class Slow(Context):
        def report(self, name: str, text: str) -> None:
            Event().wait(2.0)

    trainer = trainer_of(Slow(tmp_path), steps=4)
    trainer.profiler = StepProfiler(trainer.ctx, ProfiledSteps(step=1))
    trainer.run()
    tokens = 4 * 8 * trainer.stepper.rows.width
    assert trainer.last["train/tokens_per_second"] > tokens / 2.0


def test_a_trace_that_can_not_begin_any_more_is_said_once(tmp_path: Path) -> None:
    ctx = LocalContext(folder=tmp_path)
    profiler = StepProfiler(ctx, ProfiledSteps(step=2, steps=5))
    for step in (4, 5):
        with profiler.step(step, 9):
            pass
    assert ctx.lines == ["no step is traced: profile.step=2, and this attempt goes on from step 3"]


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
        ({"profile": {"step": 9}, "steps": 8}, "profile.step=9 is beyond the last step, 8"),
        ({"micro_batch_tokens": 0}, "micro_batch_tokens=0: give a whole number, at least 1"),
        ({"micro_batch_tokens": 64, "accumulate": 2}, "both say what a worker takes at once"),
    ],
)
def test_what_can_not_be_is_refused_with_its_value(
    tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        pretrain(LocalContext(folder=tmp_path), **params)
    assert profiled_steps(None, 1) is None
