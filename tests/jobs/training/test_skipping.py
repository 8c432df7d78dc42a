"""A step that can teach nothing right changes nothing, is counted, and is never saved as more."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.data.dataset import IGNORE, Rows
from jobs.evaluation.held_out import evaluate
from jobs.parity.reference import measure
from jobs.pretraining import pretrain
from jobs.training import model as models
from jobs.training.balance import Balance
from jobs.training.checkpoint import SHARD_NAME, Snapshots, State
from jobs.training.loss import TokenLoss
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.order import Order
from jobs.training.process_group import ProcessGroup
from jobs.training.profiling import StepProfiler
from jobs.training.schedule import Schedule
from jobs.training.step import Stepper
from jobs.training.trainer import Every, Trainer
from jobs.training.utilization import Speed
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT, SMALL
from tests.jobs.test_pretraining import close, same_bits, train_gang, weights

CPU = torch.device("cpu")
BATCH = SHORT["batch_size"]
NORM = "train/grad_norm"


def without_labels(data: Path, folder: Path, split: str, rows: Sequence[int]) -> Path:
    """Return a copy of a data set whose rows `rows` of a split have no label; none is all."""
    shutil.copytree(data, folder)
    file = folder / f"{split}.safetensors"
    tensors = load_file(file)
    if rows:
        tensors["labels"][list(rows)] = IGNORE
    else:
        tensors["labels"][:, 1:] = IGNORE  # the first token of a row is never to be learnt
    save_file(tensors, file)
    return folder


def some_unlabelled(data: Path, folder: Path, batches: Sequence[int]) -> Path:
    """Return a data set of which all rows of these batches, by their step, have no label."""
    count = len(load_file(data / "train.safetensors")["labels"])
    order = Order(count, seed=7)
    rows = [row for step in batches for row in order.take((step - 1) * BATCH, BATCH).tolist()]
    return without_labels(data, folder, "train", rows)


@pytest.mark.parametrize("batches", [(1,), (5,), (9, 10, 11, 12, 13), (24,)])
def test_batches_without_a_label_are_left_out_and_counted(
    tmp_path: Path, sums: Path, batches: tuple[int, ...]
) -> None:
    data = some_unlabelled(sums, tmp_path / "data", batches)
    ctx = LocalContext(folder=tmp_path / "whole", inputs={"data": data})
    told = pretrain(ctx, **SHORT)

    losses = {step: values["train/loss"] for step, values in ctx.points if "train/loss" in values}
    assert set(losses) == set(range(1, 25)) - set(batches)
    assert {step for step, values in ctx.points if NORM in values} == set(losses)
    assert all(map(math.isfinite, losses.values()))
    assert told["train/skipped"] == len(batches)
    assert ctx.series("train/skipped")[-1] == len(batches)
    why = "none of its rows has a label; train/skipped counts such steps"
    said = [line for line in ctx.lines if "left out" in line]
    assert said == [f"step {batches[0]} is left out: {why}"]
    assert all(tensor.isfinite().all() for tensor in weights(ctx).values())


def test_a_run_goes_on_bit_by_bit_over_batches_without_a_label(tmp_path: Path, sums: Path) -> None:
    data = some_unlabelled(sums, tmp_path / "data", (1, 10, 12))
    whole = LocalContext(folder=tmp_path / "whole", inputs={"data": data})
    told = pretrain(whole, **SHORT)
    lost = LocalContext(folder=tmp_path / "lost", inputs={"data": data}, stop_after=11)
    with pytest.raises(InterruptedError):
        pretrain(lost, **SHORT)
    resumed = LocalContext(folder=tmp_path / "lost", inputs={"data": data})

    assert pretrain(resumed, **SHORT)["train/skipped"] == told["train/skipped"] == 3
    assert same_bits(resumed, whole)


def test_a_gang_leaves_out_the_same_steps_as_one_worker(tmp_path: Path, sums: Path) -> None:
    data = some_unlabelled(sums, tmp_path / "data", (3, 11))
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": data})
    pretrain(alone, **SHORT)
    told = train_gang(tmp_path, data, size=2)

    assert told["train/skipped"] == 2
    assert close(weights(LocalContext(folder=tmp_path)), weights(alone))


def test_a_split_without_any_label_is_refused_before_the_first_step(
    tmp_path: Path, sums: Path
) -> None:
    data = without_labels(sums, tmp_path / "data", "train", ())
    ctx = LocalContext(folder=tmp_path, inputs={"data": data})
    with pytest.raises(ValueError, match=r"no row of the training split of .* has a label"):
        pretrain(ctx, **SHORT)


def test_validation_without_a_label_has_no_loss(tmp_path: Path, sums: Path) -> None:
    data = without_labels(sums, tmp_path / "data", "validation", ())
    ctx = LocalContext(folder=tmp_path / "train", inputs={"data": data})
    told = pretrain(ctx, **{**SHORT, "steps": 3})

    assert "validation/loss" not in told
    assert "no row of the validation split has a label: it has no loss" in ctx.lines


def test_evaluation_without_a_label_has_no_loss(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    data = without_labels(sums, tmp_path / "data", "test", ())
    inputs = {"data": data, "model": undisturbed.output}
    ctx = LocalContext(folder=tmp_path / "eval", inputs=inputs)
    told = evaluate(ctx, examples=4, max_tokens=2)

    assert "eval/loss" not in told
    assert "eval/accuracy" in told
    assert json.loads((ctx.output / "report.json").read_text()) == told


def test_evaluation_of_no_rows_has_no_loss(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums, "model": undisturbed.output})
    told = evaluate(ctx, examples=0)

    assert "eval/loss" not in told
    assert told["eval/examples"] == 0


def test_the_reference_passes_over_rows_without_a_label_and_needs_one(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    some = without_labels(sums, tmp_path / "some", "test", range(3))
    ctx = LocalContext(
        folder=tmp_path / "told", inputs={"data": some, "model": undisturbed.output}
    )
    assert measure(ctx, questions=4, max_tokens=2)["reference/questions"] == 4
    none = without_labels(sums, tmp_path / "none", "test", ())
    ctx = LocalContext(
        folder=tmp_path / "refused", inputs={"data": none, "model": undisturbed.output}
    )
    with pytest.raises(ValueError, match="no row of split 'test' has a label"):
        measure(ctx, questions=4, max_tokens=2)


def test_validation_takes_no_more_rows_at_once_than_training_does(tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx)
    trainer.stepper = replace(trainer.stepper, accumulate=4)
    seen: list[int] = []
    trainer.loss.model.register_forward_pre_hook(
        lambda _, __, named: seen.append(len(named["input_ids"])), with_kwargs=True
    )
    trainer.validation_loss()
    assert seen == [2] * 64
    seen.clear()
    labels = torch.zeros(128, 24, dtype=torch.int32)
    trainer.validation = Rows(labels + 5, labels + 5)
    trainer.validation_loss()
    assert seen == [1] * 128


def test_a_worker_without_a_row_to_validate_takes_part(tmp_path: Path, sums: Path) -> None:
    told = train_gang(tmp_path, sums, size=2, validation_rows=1)
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **{**SHORT, "validation_rows": 1})

    expected = alone.series("validation/loss")[-1]
    assert told["validation/loss"] == pytest.approx(expected, rel=1e-3)


# --- numbers that are none ----------------------------------------------------------------------


class Tokenizer:
    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __len__(self) -> int:
        return 40


class Context(LocalContext):
    """A context in which something happens after a step."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder=folder)
        self.after: dict[int, Callable[[], object]] = {}

    def progress(self, done: int, total: int) -> None:
        super().progress(done, total)
        self.after.get(done, lambda: None)()

    @property
    def saved(self) -> list[int]:
        return sorted(int(path.name) for path in (self.folder / "checkpoints").glob("*"))


def trainer_of(ctx: Context, *, checkpoint_every: int = 3, steps: int = 12) -> Trainer:
    """Return the trainer of a small model."""
    torch.manual_seed(3)
    tokens = torch.randint(3, 40, (128, 12), dtype=torch.int32)
    rows = Rows(tokens, tokens.clone())
    model = models.build("llama", SMALL, Tokenizer())
    optimizer = optimizer_for(model, OptimizerConfig(beta2=0.98), rate=1e-2, device=CPU)
    loss = TokenLoss(model)
    stepper = Stepper(
        group=ProcessGroup(ctx),
        wrapped=loss,
        optimizer=optimizer,
        rows=rows,
        pad=0,
        accumulate=1,
        clip=1.0,
        balance=Balance(model, ProcessGroup(ctx), rate=0.0),
    )
    return Trainer(
        ctx=ctx,
        loss=loss,
        stepper=stepper,
        schedule=Schedule(peak=1e-2, warmup=1, steps=steps, floor=0.1),
        speed=Speed(chips=1, flops=0.0, peak=None),
        profiler=StepProfiler(ctx, None),
        order=Order(len(rows), seed=7),
        batch_size=8,
        every=Every(log=4, validate=0, checkpoint=checkpoint_every),
        validation=rows,
        state=State(seed=7),
        patience=3,
    )


def weight_of(trainer: Trainer) -> torch.nn.Parameter:
    return next(trainer.loss.model.parameters())


def spoil_gradients(
    trainer: Trainer, ctx: Context, steps: range, value: float
) -> list[torch.Tensor]:
    """Have the gradients of these steps be no numbers; return a weight before and after them."""
    weight, seen = weight_of(trainer), []

    def begin() -> None:
        seen.append(weight.detach().clone())
        hook = weight.register_hook(lambda gradient: gradient * value)

        def end() -> None:
            hook.remove()
            seen.append(weight.detach().clone())

        ctx.after[steps[-1]] = end

    ctx.after[steps[0] - 1] = begin
    return seen


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_changes_nothing(tmp_path: Path, value: float) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx)
    before_and_after = spoil_gradients(trainer, ctx, range(5, 7), value)
    told = trainer.run()

    assert torch.equal(*before_and_after)
    assert told["train/skipped"] == 2
    norms = {step: n for step, values in ctx.points for k, n in values.items() if k == NORM}
    assert list(norms) == list(range(1, 13))
    assert [step for step, norm in norms.items() if not math.isfinite(norm)] == [5, 6]
    assert math.isfinite(told["train/loss"])
    assert ctx.lines == [
        "step 5 is left out: its loss or gradient is no number; train/skipped counts such steps"
    ]
    assert ctx.saved == [3, 7, 9]


def test_gradients_that_are_no_numbers_several_times_in_a_row_are_a_divergence(
    tmp_path: Path,
) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx)
    spoil_gradients(trainer, ctx, range(5, 13), math.nan)
    with pytest.raises(
        FloatingPointError, match=r"nan at step 7: .* no number for 3 steps in a row"
    ):
        trainer.run()

    assert ctx.saved == [3]
    for file in (tmp_path / "checkpoints").rglob(SHARD_NAME):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())


def test_a_step_without_a_label_is_no_sign_of_recovery(tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx)
    spoil_gradients(trainer, ctx, range(5, 13), math.nan)
    trainer.stepper.rows.labels[trainer.order.take(5 * 8, 8)] = IGNORE  # those of step 6
    with pytest.raises(FloatingPointError, match=r"at step 8: .* no number for 3 steps in a row"):
        trainer.run()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx, checkpoint_every=5)
    ctx.after[4] = lambda: weight_of(trainer).data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"at step 7: .* no number for 3 steps in a row"):
        trainer.run()

    assert ctx.points[-1][1]["train/skipped"] == 3
    assert ctx.saved == []


def test_a_checkpoint_waits_for_a_step_that_proves_its_state(tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx)
    spoil_gradients(trainer, ctx, range(6, 8), math.nan)
    trainer.run()

    assert ctx.saved == [3, 8, 9]


@pytest.mark.parametrize("where", ["weight", "moment"])
@pytest.mark.parametrize("step", [3, 6, 12])
def test_a_state_that_is_not_all_numbers_is_neither_saved_nor_handed_on(
    tmp_path: Path, where: str, step: int
) -> None:
    ctx = Context(tmp_path)
    trainer = trainer_of(ctx)
    optimizer = trainer.stepper.optimizer

    def spoil(*_: object) -> None:
        weight = weight_of(trainer)
        tensor = weight.data if where == "weight" else optimizer.state[weight]["exp_avg_sq"]
        tensor.view(-1)[7] = math.inf

    # at the end of the step itself: its loss and its gradient were numbers
    ctx.after[step - 1] = lambda: optimizer.register_step_post_hook(spoil)
    with pytest.raises(FloatingPointError, match=f"is no number after step {step}: this state"):
        trainer.run()
    assert ctx.saved == [one for one in (3, 6, 9) if one < step]


def test_no_shard_holds_what_another_one_saves_now(tmp_path: Path) -> None:
    """The optimizer holds nothing before its first step, which may be after the first save."""
    trainer = trainer_of(Context(tmp_path), checkpoint_every=0)
    optimizer = trainer.stepper.optimizer
    snapshots = [Snapshots(trainer.loss.model, optimizer, rank=rank, size=3) for rank in range(3)]
    for rank, snapshot in enumerate(snapshots):
        (tmp_path / f"first-{rank}").mkdir()
        snapshot.take(State())(tmp_path / f"first-{rank}")
    trainer.run()
    names: list[str] = []
    for rank, snapshot in enumerate(snapshots):
        (tmp_path / f"second-{rank}").mkdir()
        snapshot.take(State())(tmp_path / f"second-{rank}")
        names += load_file(tmp_path / f"second-{rank}" / SHARD_NAME)
    assert len(names) == len(set(names))
