"""A training whose every row outgrows a chip: it goes on where there is more memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
FAULT = "{what: raise, signature: cuda_oom, at_step: 4, stages: [pretrain]}"


def test_a_row_that_does_not_fit_moves_training_to_the_next_pool(workplace: Any) -> None:
    pretrain = "pipeline.stages.pretrain"
    launched = workplace.run(
        *("launch", "pipeline=smoke", "cluster=local", "tracking=none"),
        *(f"{pretrain}.params.batch_size=1", f"{pretrain}.needs.workers=1"),
        *(f"~pipeline.stages.{name}" for name in ("evaluate", "export", "serve")),
        f"+fleet.pools.nvidia.emulation.faults=[{FAULT}]",
        seconds=120,
    )
    assert launched.returncode == 0, launched.stdout + launched.stderr
    run = json.loads(workplace.run("status", "--json").stdout)[0]
    (stage,) = (stage for stage in run["stages"] if stage["stage"] == "pretrain")
    assert (run["state"], stage["pool"], stage["attempts"]) == ("succeeded", "ascend", 2)
    assert "out_of_memory: falls back from nvidia to ascend" in launched.stdout
    assert "a micro-batch of one row does not fit" in launched.stdout
