"""A training from a released model says which layers it leaves out, and saves none of them."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.engines.weights import further_layers
from jobs.pretraining import pretrain
from tests.jobs.engines.test_weights import add_layers
from tests.jobs.local_context import LocalContext
from tests.jobs.parity.rates import SIZES
from tests.jobs.recipes import SHORT

FIELD = "num_nextn_predict_layers"
RECIPE = {**SHORT, "architecture": "deepseek_v3", "model": {**SIZES["deepseek_v3"]}, "steps": 2}


def test_layers_that_predict_further_tokens_are_left_out_by_name(
    tmp_path: Path, sums: Path
) -> None:
    fresh = LocalContext(folder=tmp_path / "fresh", inputs={"data": sums})
    pretrain(fresh, **RECIPE)
    released = add_layers(fresh.output, FIELD, 1)
    inputs = {"data": sums, "model": released}
    ctx = LocalContext(folder=tmp_path / "next", inputs=inputs)
    pretrain(ctx, **RECIPE)
    said = "model.layers.2: layers that predict further tokens are not trained"
    assert said in ctx.lines
    assert json.loads((ctx.output / "config.json").read_text())[FIELD] == 0
    assert further_layers(ctx.output) == ()
    assert not [line for line in fresh.lines if "further tokens" in line]
