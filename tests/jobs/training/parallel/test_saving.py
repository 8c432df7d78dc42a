"""A model that is dealt out is written in pieces, as one worker makes and writes it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.jobs.recipes import LATENT, SMALL, SMALL_EXPERTS
from tests.jobs.scripts import printed_by

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # gangs in turn, on a busy machine

MOST = 1000  # bytes; the smallest cut of a tensor here has fewer
PADDED = 1.1 * MOST  # parts of a length that does not divide are filled up
EXPERTS = {**SMALL_EXPERTS, "num_experts": 4, "num_experts_per_tok": 2}
FEW = {**EXPERTS, "num_experts": 2}  # dealt out along another dimension
DEEPSEEK = {
    **SMALL_EXPERTS,
    **LATENT,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "v_head_dim": 16,
}
TIED = {**SMALL, "tie_word_embeddings": True}
GANGS: dict[str, tuple[int, dict[str, int], str, dict[str, Any]]] = {
    "shard": (2, {"shard": 2}, "llama", TIED),
    "uneven": (3, {"shard": 3}, "llama", SMALL),
    "experts": (4, {"shard": 4}, "qwen3_moe", EXPERTS),
    "few experts": (4, {"shard": 4}, "qwen3_moe", FEW),
    "experts dealt out": (4, {"shard": 2, "expert": 2}, "qwen3_moe", EXPERTS),
    "replicas": (4, {"replicate": 2, "shard": 2}, "deepseek_v3", DEEPSEEK),
    "split": (4, {"shard": 2, "tensor": 2}, "deepseek_v3", DEEPSEEK),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all gangs, each in one of its own."""
    root = tmp_path_factory.mktemp("written")
    gangs = [
        {
            "folder": str(root / name),
            "inputs": {},
            "workers": workers,
            "params": {
                "parallel": parallel,
                "architecture": architecture,
                "model": model,
                "most": MOST,
                "fresh": name != "shard",
            },
        }
        for name, (workers, parallel, architecture, model) in GANGS.items()
    ]
    printed_by("training.parallel.exports", gangs, seconds=270.0)
    return root


@pytest.mark.parametrize("name", GANGS)
def test_pieces_give_the_files_that_whole_tensors_give(written: Path, name: str) -> None:
    pieces, whole, alone = (
        written / name / folder for folder in ("pieces/output", "whole/output", "alone")
    )
    for file in alone.iterdir():
        assert (pieces / file.name).read_bytes() == (whole / file.name).read_bytes()
        if file.suffix == ".json":
            assert (pieces / file.name).read_text() == file.read_text()
    tensors, expected = (load_file(folder / "model.safetensors") for folder in (pieces, alone))
    assert tensors.keys() == expected.keys()
    assert all(tensors[name].equal(tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", [name for name in GANGS if name != "split"])
def test_no_more_is_gathered_at_once_than_is_said(written: Path, name: str) -> None:
    largest = json.loads((written / name / "result.json").read_text())
    assert largest["pieces"] <= PADDED < largest["whole"]
