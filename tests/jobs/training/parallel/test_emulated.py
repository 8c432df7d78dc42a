"""A model is dealt out on an emulated chip as on the host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.pretraining import pretrain
from tests.jobs.local_context import LocalContext
from tests.jobs.scripts import printed_by
from tests.jobs.test_portability import PARAMS, spec_of
from tests.ports import free_address

SHORTER = {"steps": 4, "checkpoint_every": 2, "validate_every": 4}


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [{"shard": 2}, {"tensor": 2}])
def test_an_emulated_chip_trains_its_part(
    tmp_path: Path, sums: Path, parallel: dict[str, int]
) -> None:
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **{**PARAMS, **SHORTER})
    spec = spec_of(tmp_path / "store", sums, [2], **SHORTER, parallel=parallel)
    spec |= {"workers": 2, "rendezvous": free_address()}
    printed = printed_by("training.parallel.emulated_training", spec)
    points = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    losses = [point["train/loss"] for point in points if "train/loss" in point]
    assert losses == pytest.approx(alone.series("train/loss"), rel=1e-3)
