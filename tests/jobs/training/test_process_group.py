"""A gang learns what one worker learns, whatever takes no part in a worker's share of a step."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from jobs.pretraining import pretrain
from jobs.training.order import Order
from tests.jobs.local_context import LocalContext
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
