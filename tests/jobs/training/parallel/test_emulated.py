"""A model is dealt out on an emulated chip as on the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.pretraining import pretrain
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SMALL_EXPERTS
from tests.jobs.scripts import printed_by
from tests.jobs.test_portability import PARAMS, spec_of
from tests.ports import free_address

EXPERTS = {
    "architecture": "qwen3_moe",
    "model": {**SMALL_EXPERTS, "num_experts": 4, "num_experts_per_tok": 2},
}
SHORTER = {"steps": 4, "checkpoint_every": 2, "validate_every": 4}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "model"), [({"shard": 2}, {}), ({"tensor": 2}, {}), ({"expert": 2}, EXPERTS)]
)
def test_an_emulated_chip_trains_its_part(
    tmp_path: Path, sums: Path, parallel: dict[str, int], model: dict[str, Any]
) -> None:
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **{**PARAMS, **SHORTER, **model})
    spec = spec_of(tmp_path / "store", sums, [2], **SHORTER, **model, parallel=parallel)
    spec |= {"workers": 2, "rendezvous": free_address()}
    printed = printed_by("training.parallel.emulated_training", spec)
    points = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    losses = [point["train/loss"] for point in points if "train/loss" in point]
    assert losses == pytest.approx(alone.series("train/loss"), rel=1e-3)
