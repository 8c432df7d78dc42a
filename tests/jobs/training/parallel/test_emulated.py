"""A model is dealt out on an emulated chip as on the host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.pretraining import pretrain
from tests.jobs.local_context import LocalContext
from tests.jobs.test_portability import PARAMS, ROOT, spec_of
from tests.jobs.training.parallel import emulated_training
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
    done = subprocess.run(
        [sys.executable, emulated_training.__file__, json.dumps(spec)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    losses = [point["train/loss"] for point in points if "train/loss" in point]
    assert losses == pytest.approx(alone.series("train/loss"), rel=1e-3)
