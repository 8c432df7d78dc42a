from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.pretraining import pretrain
from jobs.training.pretraining_recipe import micro_batches
from orchestrator.core.failures.kinds import DOES_NOT_FIT, FailureKind
from orchestrator.job import Changes
from orchestrator.worker.exception_report import describe
from tests.build import documented
from tests.jobs import local_context
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT

ROOT = Path(__file__).parents[2]


def weights(ctx: LocalContext) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(ctx.output / "model.safetensors")
    return loaded


def same_bits(one: LocalContext, other: LocalContext) -> bool:
    return (one.output / "model.safetensors").read_bytes() == (
        other.output / "model.safetensors"
    ).read_bytes()


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(one[name], other[name], atol=2e-4, rtol=1e-3) for name in one)


def train_gang(folder: Path, data: Path, *, size: int, **changes: Any) -> dict[str, float]:
    """Train with `size` processes that meet over a file; return what rank 0 returned."""
    spec = {"store": str(folder / "store"), "folder": str(folder), "inputs": {"data": str(data)}}
    spec |= {"job": "jobs.pretraining.pretrain", "world_size": size}  # type: ignore[dict-item]
    spec |= {"params": {**SHORT, **changes}}  # type: ignore[dict-item]
    return run_gang([{**spec, "rank": rank} for rank in range(size)])


def run_gang(specs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Run a worker of each spec in a process of its own; return what rank 0 returned.

    With a `cwd` of its own, to which its `folder` is relative, a worker sees no other's folder: as
    on another node.
    """
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-W", "error::FutureWarning"),
                *(local_context.__file__, json.dumps(spec)),
            ],
            cwd=spec.get("cwd", ROOT),
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for spec in specs
    ]
    try:
        ends = [(worker.communicate(timeout=110)[1], worker.returncode) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [code for _, code in ends] == [0] * len(specs), ends
    first = Path(specs[0].get("cwd", ROOT), specs[0]["folder"])
    told: dict[str, float] = json.loads((first / "result.json").read_text())
    return told


def test_the_loss_goes_down_and_every_step_is_told(undisturbed: LocalContext) -> None:
    losses = undisturbed.series("train/loss")

    assert len(losses) == SHORT["steps"]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert len(undisturbed.series("validation/loss")) == 2
    assert undisturbed.done == (SHORT["steps"], SHORT["steps"])
    for name in ("train/lr", "train/grad_norm", "train/tokens_per_second"):
        assert all(value > 0 for value in undisturbed.series(name))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    again = LocalContext(folder=tmp_path / "again", inputs={"data": sums})
    other = LocalContext(folder=tmp_path / "other", inputs={"data": sums}, seed=8)
    pretrain(again, **SHORT)
    pretrain(other, **SHORT)

    assert same_bits(again, undisturbed)
    assert again.series("train/loss") == undisturbed.series("train/loss")
    assert not same_bits(other, undisturbed)


@pytest.mark.parametrize("lost_after", [10, 17])
def test_a_lost_worker_goes_on_bit_by_bit_as_if_nothing_had_happened(
    tmp_path: Path, sums: Path, undisturbed: LocalContext, lost_after: int
) -> None:
    lost = LocalContext(folder=tmp_path, inputs={"data": sums}, stop_after=lost_after)
    with pytest.raises(InterruptedError):
        pretrain(lost, **SHORT)
    resumed = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(resumed, **SHORT)

    assert resumed.points[0][0] == 11
    assert same_bits(resumed, undisturbed)
    assert resumed.series("train/loss") == undisturbed.series("train/loss")[10:]
    for path in undisturbed.output.glob("*.json"):
        assert (resumed.output / path.name).read_text() == path.read_text()


def test_checkpoints_hold_no_pickle(undisturbed: LocalContext) -> None:
    files = [path for path in (undisturbed.folder / "checkpoints").rglob("*") if path.is_file()]

    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path, sums: Path) -> None:
    lost = LocalContext(folder=tmp_path, inputs={"data": sums}, stop_after=10)
    with pytest.raises(InterruptedError):
        pretrain(lost, **SHORT)

    with pytest.raises(ValueError, match="made with seed 7, this run has 8"):
        pretrain(LocalContext(folder=tmp_path, inputs={"data": sums}, seed=8), **SHORT)


def test_two_workers_learn_what_one_learns(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    told = train_gang(tmp_path, sums, size=2)
    pair = LocalContext(folder=tmp_path)

    assert told["train/loss"] == pytest.approx(undisturbed.series("train/loss")[-1], rel=1e-3)
    assert told["validation/loss"] == pytest.approx(
        undisturbed.series("validation/loss")[-1], rel=1e-3
    )
    assert close(weights(pair), weights(undisturbed))


def test_micro_batches_change_nothing_but_the_rounding(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(ctx, **{**SHORT, "accumulate": 3})

    assert close(weights(ctx), weights(undisturbed))


@pytest.mark.parametrize(
    ("factor", "workers", "sizes"),
    [(1, 1, [3]), (2, 1, [2, 1]), (4, 1, [1, 1, 1]), (64, 1, [1, 1, 1]), (4, 2, [1, 1])],
)
def test_no_more_micro_batches_are_taken_than_a_worker_has_rows(
    tmp_path: Path, sums: Path, factor: int, workers: int, sizes: list[int]
) -> None:
    ctx = LocalContext(folder=tmp_path, world_size=workers, adjust=Changes(accumulate=factor))
    split = micro_batches(ctx, batch_size=3, accumulate=1, workers=workers)
    assert split.count(1025) == len(sizes)
    if workers == 1:
        ctx.inputs = {"data": sums}
        pretrain(ctx, **{**SHORT, "batch_size": 3, "steps": 1})
        assert ctx.done == (1, 1)


@pytest.mark.parametrize(
    ("factor", "tokens", "count"),
    [(1, 8192, 2), (2, 8192, 4), (64, 8192, 16), (1, 2**20, 1), (2, 2**20, 2), (1, 1, 16)],
)
def test_a_limit_in_tokens_counts_those_that_the_model_takes_and_is_lessened_even_if_it_is_none(
    tmp_path: Path, factor: int, tokens: int, count: int
) -> None:
    ctx = LocalContext(folder=tmp_path, adjust=Changes(accumulate=factor))
    split = micro_batches(ctx, 16, 1, 1, tokens)
    assert split.count(1025) == count  # rows of 1,024 tokens and a last label


@pytest.mark.parametrize("says", ["CUDA out of memory. Tried 2 MiB", "NPU out of memory."])
def test_memory_that_runs_out_of_one_row_is_said_to_need_another_pool(
    tmp_path: Path, sums: Path, says: str
) -> None:
    class Small(LocalContext):
        def progress(self, done: int, total: int) -> None:
            raise RuntimeError(says)

    for batch_size, factor, kind in ((1, 1, torch.OutOfMemoryError), (4, 2, RuntimeError)):
        folder = tmp_path / str(batch_size)
        ctx = Small(folder=folder, inputs={"data": sums}, adjust=Changes(accumulate=factor))
        with pytest.raises(RuntimeError, match=says) as raised:
            pretrain(ctx, **{**SHORT, "batch_size": batch_size})
        assert raised.type is kind
        report = describe(raised.value, documented())
        assert report.kind is FailureKind.OUT_OF_MEMORY
        assert (report.sign == DOES_NOT_FIT) == (batch_size == 1)


@pytest.mark.parametrize("size", [2, 3])
def test_a_worker_without_a_row_adds_nothing(tmp_path: Path, sums: Path, size: int) -> None:
    recipe: dict[str, Any] = {"batch_size": 1, "steps": 6, "checkpoint_every": 3}
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **{**SHORT, **recipe})
    last = train_gang(tmp_path, sums, size=size, **recipe)

    assert last["train/loss"] == pytest.approx(alone.series("train/loss")[-1], rel=1e-3)
    assert close(weights(LocalContext(folder=tmp_path)), weights(alone))


def test_another_architecture_is_a_name_and_its_fields(tmp_path: Path, sums: Path) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    fields = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    pretrain(ctx, **{**SHORT, "architecture": "gpt2", "model": fields, "steps": 2})

    config = json.loads((ctx.output / "config.json").read_text())
    assert (config["model_type"], config["n_embd"]) == ("gpt2", 16)


def test_training_goes_on_from_the_input_model(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    inputs = {"data": sums, "model": undisturbed.output}
    ctx = LocalContext(folder=tmp_path, inputs=inputs)
    pretrain(ctx, **{**SHORT, "steps": 2, "learning_rate": 1e-5})

    last = undisturbed.series("train/loss")[-1]
    assert ctx.series("train/loss")[0] == pytest.approx(last, abs=0.4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architecture": "lama"}, "architecture='lama' is none that transformers knows"),
        ({"model": {"hidden_sise": 32}}, "model has no field 'hidden_sise'"),
        ({"precision": "fp8"}, "precision='fp8' is none of"),
        ({"batch_size": 2, "accumulate": 3}, "batch_size=2 is too small"),
        ({"accumulate": 0}, "accumulate=0"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_value(
    tmp_path: Path, sums: Path, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        pretrain(LocalContext(folder=tmp_path, inputs={"data": sums}), **{**SHORT, **changed})
