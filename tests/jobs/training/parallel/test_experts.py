"""Experts that are dealt out whole learn what they learn in one worker, and go on on any mesh."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.pretraining import pretrain
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT, SMALL_EXPERTS
from tests.jobs.test_pretraining import close, weights
from tests.jobs.training.parallel.test_sharded import (
    DEEPSEEK,
    EXPERTS,
    gang_of,
    losses_of,
    train,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # gangs in turn, on a busy machine

KINDS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {**SMALL_EXPERTS, "num_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": DEEPSEEK,
}
STACKED = 3  # dimensions of the weights of all experts of a layer
BOTH = {"shard": 2, "expert": 2}
MESHES: dict[str, dict[str, tuple[int, dict[str, int]]]] = {
    "qwen3_moe": {"shard": (2, {"shard": 2}), "expert": (2, {"expert": 2}), "both": (4, BOTH)},
    "deepseek_v3": {"both": (4, BOTH), "replicas": (4, {"replicate": 2, "expert": 2})},
}
# Each goes on from the checkpoint of the one before it: workers, mesh, its last step.
CHAIN = (
    (4, BOTH, 3),
    (1, None, 5),
    (4, BOTH, 7),
    (2, {"shard": 2}, 9),
    (4, BOTH, None),
)
# The second has fewer experts a worker than shards: they are dealt out along another dimension.
CHAINS = {
    "deepseek_v3": {"architecture": "deepseek_v3", "model": DEEPSEEK, "router_bias_rate": 0.01},
    "few": {"architecture": "qwen3_moe", "model": EXPERTS},
}
PASSES: dict[str, dict[str, Any]] = {
    "computed once more": {"activation_checkpointing": True, "accumulate": 3},
    "bf16": {"precision": "bf16"},
    "an uneven load is a loss": {
        "model": {**KINDS["qwen3_moe"], "output_router_logits": True, "router_aux_loss_coef": 0.1}
    },
}


def _recipe(kind: str, **changes: Any) -> dict[str, Any]:
    return {"architecture": kind, "model": KINDS[kind], "steps": 4, **changes}


def _alone(folder: Path, data: Path, recipe: dict[str, Any], **inputs: Path) -> LocalContext:
    ctx = LocalContext(folder=folder, inputs={"data": data, **inputs})
    pretrain(ctx, **{**SHORT, **recipe})
    return ctx


def _moved(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Return the share of weights that differ by more than rounding."""
    apart = torch.cat([(one[name] - other[name]).abs().flatten() for name in other])
    return (apart > 2e-4).float().mean().item()


def _norms(folder: Path, name: str) -> list[float]:
    norms: list[float] = json.loads((folder / f"{name}-0.json").read_text())["norms"]
    return norms


@pytest.mark.parametrize("kind", KINDS)
def test_workers_with_some_experts_learn_what_one_with_all_learns(
    tmp_path: Path, sums: Path, kind: str
) -> None:
    recipe = _recipe(kind)
    train(
        tmp_path,
        *(
            gang_of(tmp_path / name, sums, "-", *mesh, None, **recipe)
            for name, mesh in MESHES[kind].items()
        ),
    )
    ctx = _alone(tmp_path / "alone", sums, recipe)
    losses, norms = ctx.series("train/loss"), ctx.series("train/grad_norm")
    for name in MESHES[kind]:
        assert losses_of(tmp_path / name, "-") == pytest.approx(losses, rel=1e-5)
        assert _norms(tmp_path / name, "-") == pytest.approx(norms, rel=1e-4)
        # a token may go to another expert by rounding, and Adam then moves a few weights otherwise
        moved = _moved(weights(LocalContext(folder=tmp_path / name)), weights(ctx))
        assert moved < 0.05
        for path in ctx.output.glob("*.json"):
            assert (tmp_path / name / "output" / path.name).read_text() == path.read_text()


def test_the_model_folder_is_that_of_one_worker(tmp_path: Path, sums: Path) -> None:
    every = {**KINDS["qwen3_moe"], "num_experts_per_tok": 4}  # no choice that rounding decides
    recipe = _recipe("qwen3_moe", model=every)
    train(tmp_path, gang_of(tmp_path / "both", sums, "-", 4, BOTH, None, **recipe))
    ctx = _alone(tmp_path / "alone", sums, recipe)
    assert close(weights(LocalContext(folder=tmp_path / "both")), weights(ctx))


@pytest.mark.parametrize("name", ["few", pytest.param("deepseek_v3", marks=pytest.mark.chaos)])
def test_a_run_with_experts_dealt_out_goes_on_on_any_mesh_and_back(
    tmp_path: Path, sums: Path, name: str
) -> None:
    recipe = {**CHAINS[name], "steps": 10, "checkpoint_every": 2}
    folder = tmp_path / "chain"
    train(
        tmp_path,
        *(gang_of(folder, sums, str(at), *gang, **recipe) for at, gang in enumerate(CHAIN)),
    )
    ctx = _alone(tmp_path / "alone", sums, recipe)
    losses, norms = ctx.series("train/loss"), ctx.series("train/grad_norm")
    for number, begin in enumerate((0, 2, 4, 6, 8)):
        mine = losses_of(folder, str(number))
        assert mine == pytest.approx(losses[begin : begin + len(mine)], rel=1e-3)
        of_gang = _norms(folder, str(number))
        assert of_gang == pytest.approx(norms[begin : begin + len(of_gang)], rel=1e-2)


def test_each_rank_writes_its_experts_and_no_expert_is_written_twice(
    tmp_path: Path, sums: Path
) -> None:
    recipe = _recipe("qwen3_moe", checkpoint_every=2)
    train(tmp_path, gang_of(tmp_path / "both", sums, "-", 4, BOTH, 3, **recipe))
    files = (tmp_path / "both" / "checkpoints" / "00000002").glob("rank-*/shard.safetensors")
    stacked = [
        {name: len(part) for name, part in load_file(file).items() if part.ndim == STACKED}
        for file in files
    ]
    assert len(stacked) == BOTH["shard"] * BOTH["expert"]
    assert all(held and set(held.values()) == {1} for held in stacked)


def test_a_worker_whose_experts_get_no_token_waits_for_nobody(tmp_path: Path, sums: Path) -> None:
    recipe = _recipe("deepseek_v3", router_bias_rate=0.0)
    made = _alone(tmp_path / "made", sums, {**recipe, "steps": 1}).output
    model = tmp_path / "model"
    shutil.copytree(made, model)
    tensors = load_file(model / "model.safetensors")
    for name in (name for name in tensors if name.endswith("e_score_correction_bias")):
        tensors[name][:2] = 100.0  # the first two of four experts get all tokens
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    gang = gang_of(tmp_path / "both", sums, "-", 4, BOTH, None, **recipe)
    gang["inputs"]["model"] = str(model)
    train(tmp_path, gang)
    ctx = _alone(tmp_path / "alone", sums, recipe, model=model)
    assert losses_of(tmp_path / "both", "-") == pytest.approx(ctx.series("train/loss"), rel=1e-5)
    assert close(weights(LocalContext(folder=tmp_path / "both")), weights(ctx))


@pytest.mark.chaos
def test_other_passes_learn_what_one_worker_learns(tmp_path: Path, sums: Path) -> None:
    gangs = {
        name: gang_of(tmp_path / name, sums, "-", 4, BOTH, None, **_recipe("qwen3_moe", **changes))
        for name, changes in PASSES.items()
    }
    train(tmp_path, *gangs.values())
    for name in gangs:
        recipe = _recipe("qwen3_moe", **PASSES[name])
        losses = _alone(tmp_path / f"alone {name}", sums, recipe).series("train/loss")
        loose = 1e-2 if name == "bf16" else 1e-4
        assert losses_of(tmp_path / name, "-") == pytest.approx(losses, rel=loose)
