"""A gang learns what one worker learns, whatever takes no part in a worker's share of a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.testing._internal.distributed.fake_pg import FakeStore

from jobs.pretraining import pretrain
from jobs.qualification.bench import Bench
from jobs.qualification.pace import soak
from jobs.training.order import Order
from tests.jobs.local_context import EMULATED, LocalContext
from tests.jobs.recipes import SHORT
from tests.jobs.test_pretraining import close, train_gang, weights
from tests.jobs.training.test_skipping import BATCH, without_labels

# Rows are too short for what its attention compresses: those weights take no part.
PARTLY_USED = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "q_lora_rank": 16,
    "o_lora_rank": 16,
    "o_groups": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "qk_rope_head_dim": 8,
    "sliding_window": 8,
}


def test_what_is_not_of_a_step_is_agreed_upon_on_the_host(tmp_path: Path) -> None:
    """A device of which nothing can be read stands for chips whose links are not asked."""
    dist.init_process_group("fake", rank=1, world_size=3, store=FakeStore())
    chips = replace(EMULATED, device="meta")
    ctx = LocalContext(folder=tmp_path, rank=1, world_size=3, hardware=chips)
    bench = Bench(ctx)
    try:
        assert bench.group.agree(40) == 40
        assert bench.group.all(torch.tensor(True))  # noqa: FBT003 - as a tensor
        soak(bench, [], 0.01)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_weights_that_take_no_part_hold_up_no_gang(tmp_path: Path, sums: Path) -> None:
    recipe = {**SHORT, "architecture": "deepseek_v4", "model": PARTLY_USED}
    recipe |= {"steps": 4, "checkpoint_every": 2, "accumulate": 2}
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **recipe)
    told = train_gang(tmp_path, sums, size=2, **recipe)
    assert told["train/loss"] == pytest.approx(alone.series("train/loss")[-1], rel=1e-2)
    assert close(weights(LocalContext(folder=tmp_path)), weights(alone))
    shard = alone.folder / "checkpoints" / "00000002" / "rank-0" / "shard.safetensors"
    moments = [name for name in load_file(shard) if name.endswith("exp_avg")]
    assert moments
    assert not any("compressor" in name for name in moments)


def test_a_worker_whose_rows_have_no_label_adds_nothing(tmp_path: Path, sums: Path) -> None:
    order = Order(len(load_file(sums / "train.safetensors")["labels"]), seed=7)
    rows: list[int] = []
    for step, rank in ((2, 0), (3, 1), (9, 1)):
        batch = order.take((step - 1) * BATCH, BATCH)
        rows += batch.tensor_split(2)[rank].tolist()
    data = without_labels(sums, tmp_path / "data", "train", rows)
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": data})
    pretrain(alone, **SHORT)
    told = train_gang(tmp_path, data, size=2, accumulate=2)
    assert "train/skipped" not in told
    assert close(weights(LocalContext(folder=tmp_path)), weights(alone))
