"""A model that is dealt out learns what one worker learns, and goes on on any other mesh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

from jobs.pretraining import pretrain
from jobs.training.checkpoint import Tensors
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import LATENT, SHORT, SMALL, SMALL_EXPERTS
from tests.jobs.scripts import printed_by
from tests.jobs.test_pretraining import close, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # gangs in turn, on a busy machine

HALVES, TWICE = {"shard": 2}, {"replicate": 2, "shard": 2}
# Each goes on from the checkpoint of the one before it: workers, mesh, its last step.
CHAIN = (
    (4, TWICE, 11),  # writes a checkpoint at step 10
    (4, {"shard": 2, "tensor": 2}, 13),
    (1, None, 15),
    (2, None, 17),
    (4, {"shard": -1}, 19),
    (2, {"tensor": 2}, 21),
    (1, None, None),
)
CHAIN_OF_EXPERTS = ((4, {"shard": 2, "tensor": 2}, 3), (2, HALVES, 5), (2, {"tensor": 2}, None))
SHORTER = {"steps": 4}
# Fewer experts than workers: dealt out along another dimension.
EXPERTS = {**SMALL_EXPERTS, "num_experts": 2, "num_experts_per_tok": 1}
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
# Their bias of each expert is a parameter that no gradient moves.
BIASED = {
    "afmoe": {**SMALL_EXPERTS, "num_dense_layers": 1, "num_experts": 4, "num_experts_per_tok": 2},
    "ernie4_5_moe": {
        **SMALL_EXPERTS,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_layer_start_index": 1,
    },
}
OTHERS: dict[str, tuple[int, dict[str, int], dict[str, Any]]] = {
    "experts": (4, {"shard": 4}, {**SHORTER, "architecture": "qwen3_moe", "model": EXPERTS}),
    "split": (4, {"shard": 2, "tensor": 2}, {**SHORTER, "checkpoint_every": 2}),
    "split experts": (
        4,
        {"shard": 2, "tensor": 2},
        {**SHORTER, "architecture": "deepseek_v3", "model": DEEPSEEK, "checkpoint_every": 2},
    ),
    "split heads": (
        4,
        {"shard": 2, "tensor": 2},
        {**SHORTER, "architecture": "qwen3", "model": {**SMALL, "head_dim": 16}},
    ),
    "split alone": (2, {"tensor": 2}, {**SHORTER, "accumulate": 3}),
    "bf16": (2, HALVES, {**SHORTER, "precision": "bf16"}),
    "served as trained": (2, HALVES, {**SHORTER, "weights": "bf16"}),
    "compiled": (
        2,
        HALVES,
        {**SHORTER, "activation_checkpointing": True, "compile": "aot_eager"},
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sums: Path) -> Path:
    """The folder of gangs that have trained on `sums` undisturbed, each in one of its own."""
    root = tmp_path_factory.mktemp("whole")
    return train(
        root,
        gang_of(root / "halves", sums, "whole", 2, HALVES, None),
        gang_of(root / "twice", sums, "whole", 4, TWICE, None, accumulate=3),
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, sums: Path) -> Path:
    """The folder of the chain."""
    root = tmp_path_factory.mktemp("chain")
    every = [10, *[2] * len(CHAIN)]
    gangs_in_turn = [
        gang_of(root / "chain", sums, str(number), *gang, checkpoint_every=every[number])
        for number, gang in enumerate(CHAIN)
    ]
    return train(root, *gangs_in_turn) / "chain"


@pytest.fixture(scope="module")
def others(
    tmp_path_factory: pytest.TempPathFactory, sums: Path, undisturbed: LocalContext
) -> Path:
    """The folder of gangs with other recipes, each in a folder by its name."""
    root = tmp_path_factory.mktemp("others")
    shorter = [
        gang_of(root / name, sums, "whole", workers, mesh, None, **changes)
        for name, (workers, mesh, changes) in OTHERS.items()
    ]
    shorter.append(gang_of(root / "input", sums, "whole", 2, HALVES, None, **SHORTER))
    shorter[-1]["inputs"]["model"] = str(undisturbed.output)
    experts = {**OTHERS["split experts"][2], "steps": 6}
    for number, (workers, mesh, stop) in enumerate(CHAIN_OF_EXPERTS):
        gang = gang_of(root / "experts in turn", sums, str(number), workers, mesh, stop, **experts)
        shorter.append(gang)
    return train(root, *shorter)


def train(root: Path, *runs: dict[str, Any]) -> Path:
    """Run gangs one after the other; return the folder that theirs are in."""
    printed_by("training.parallel.gangs", runs, "-W", "error::FutureWarning", seconds=270.0)
    return root


def gang_of(
    folder: Path,
    data: Path,
    name: str,
    workers: int,
    parallel: Mapping[str, int] | None,
    stop_after: int | None,
    **changes: Any,
) -> dict[str, Any]:
    """Return the spec of a gang that trains on `data`, and may be lost after a step."""
    recipe = {**SHORT, **changes, "parallel": parallel}
    return {
        "folder": str(folder),
        "inputs": {"data": str(data)},
        "workers": workers,
        "params": {"name": name, "stop_after": stop_after, **recipe},
    }


def losses_of(folder: Path, name: str) -> list[float]:
    """Return the loss of each step of a gang."""
    losses: list[float] = _told(folder, name, 0)["losses"]
    return losses


def _told(folder: Path, name: str, rank: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / f"{name}-{rank}.json").read_text())
    return told


@pytest.mark.parametrize("name", ["halves", "twice"])
def test_workers_that_hold_parts_learn_what_one_learns(
    whole: Path, undisturbed: LocalContext, name: str
) -> None:
    folder = whole / name
    assert losses_of(folder, "whole") == pytest.approx(undisturbed.series("train/loss"), rel=1e-3)
    told = json.loads((folder / "result.json").read_text())
    last = undisturbed.series("validation/loss")[-1]
    assert told["validation/loss"] == pytest.approx(last, rel=1e-3)
    assert told["train/memory_gb"] > 0
    assert close(weights(LocalContext(folder=folder)), weights(undisturbed))
    for path in undisturbed.output.glob("*.json"):
        assert (folder / "output" / path.name).read_text() == path.read_text()


def test_a_run_goes_on_on_any_mesh_and_without_one(chain: Path, undisturbed: LocalContext) -> None:
    folder, alone = chain, undisturbed.series("train/loss")
    begins = (0, 10, 12, 14, 16, 18, 20)
    for number, begin in enumerate(begins):
        losses = losses_of(folder, str(number))
        assert losses == pytest.approx(alone[begin : begin + len(losses)], rel=1e-3)
    assert len(losses_of(folder, "6")) == SHORT["steps"] - 20
    assert close(weights(LocalContext(folder=folder)), weights(undisturbed))


def test_split_experts_go_on_on_any_mesh(others: Path, tmp_path: Path, sums: Path) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(ctx, **{**SHORT, **OTHERS["split experts"][2], "steps": 6})
    alone = ctx.series("train/loss")
    for number, begin in enumerate((0, 2, 4)):
        losses = losses_of(others / "experts in turn", str(number))
        assert losses == pytest.approx(alone[begin : begin + len(losses)], rel=1e-3)


def test_a_worker_brings_the_parts_that_hold_something_of_its_own_and_no_more(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    folder, recipe = tmp_path / "in turn", {"checkpoint_every": 2}
    gangs_in_turn = [
        gang_of(folder, sums, str(number), workers, mesh, 3 + 2 * number, **recipe)
        for number, (workers, mesh) in enumerate([(4, {"shard": 4})] * 2 + [(2, None)] * 2)
    ]
    train(tmp_path, *gangs_in_turn)
    parts = [[_told(folder, str(n), rank)["brought"] for rank in range(2)] for n in range(4)]
    assert [[sorted(brought) for brought in of_gang] for of_gang in parts] == [
        [[], []],
        [["rank-0"], ["rank-1"]],
        [["rank-0", "rank-2"], ["rank-1", "rank-3"]],
        [["rank-0"], ["rank-1"]],
    ]
    one, half = sum(parts[1][1].values()), sum(parts[3][1].values())
    assert half == pytest.approx(2 * one, rel=0.2)
    alone = undisturbed.series("train/loss")
    for number in range(4):
        losses, begin = losses_of(folder, str(number)), 2 * number
        assert losses == pytest.approx(alone[begin : begin + len(losses)], rel=1e-3)


@pytest.mark.parametrize("kind", BIASED)
def test_biases_that_are_parameters_stay_with_every_worker_on_any_mesh(
    tmp_path: Path, sums: Path, kind: str
) -> None:
    recipe = {"architecture": kind, "model": BIASED[kind], "router_bias_rate": 0.01}
    recipe |= {"steps": 5, "checkpoint_every": 2}
    ctx = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(ctx, **{**SHORT, **recipe})
    folder, mesh = tmp_path / "dealt", {"shard": 2, "tensor": 2}
    train(
        tmp_path,
        gang_of(folder, sums, "0", 2, HALVES, 3, **recipe),
        gang_of(folder, sums, "1", 4, mesh, None, **recipe),
    )
    alone = ctx.series("train/loss")
    assert losses_of(folder, "0") == pytest.approx(alone[:3], rel=1e-3)
    assert losses_of(folder, "1") == pytest.approx(alone[2:], rel=1e-3)
    of_gang, expected = weights(LocalContext(folder=folder)), weights(ctx)
    (name,) = (name for name in expected if name.endswith(("expert_bias", "correction_bias")))
    assert of_gang[name].any()
    # a token may go to another expert by rounding, and the bias of a step with it
    assert (of_gang[name] - expected[name]).abs().max() <= 0.02 + 1e-6


def test_each_rank_writes_its_own_part_and_no_part_is_written_twice(whole: Path) -> None:
    model = load_file(whole / "halves" / "output" / "model.safetensors")
    for name in ("halves", "twice"):
        folder = whole / name / "checkpoints" / "00000010"
        files = [part / "shard.safetensors" for part in sorted(folder.iterdir())]
        sizes = [sum(part.nbytes for part in load_file(file).values()) for file in files]
        assert max(sizes) < 2 * min(sizes)
        held = dict.fromkeys(model, 0)
        for file in files:
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - it is no mapping
                    kind, _, tensor = key.partition("/")
                    if kind == "model":
                        held[tensor] += opened.get_tensor(key).numel()
        assert held == {key: tensor.numel() for key, tensor in model.items()}
        assert {path.suffix for path in folder.rglob("*.*")} == {".json", ".safetensors"}


def _read_by_torch(checkpoint: Path, folder: Path, like: Tensors) -> Tensors:
    """Return what torch's own reader reads of the files of all ranks of a checkpoint."""
    folder.mkdir()
    for file in checkpoint.glob("rank-*/*.safetensors"):
        (folder / f"{file.parent.name}-{file.name}").symlink_to(file)
    read = {name: torch.zeros_like(tensor) for name, tensor in like.items()}
    load(read, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return read


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("name", ["halves", "twice"])
def test_torchs_own_reader_reads_what_the_ranks_have_written(
    whole: Path, undisturbed: LocalContext, tmp_path: Path, name: str
) -> None:
    alone = load_file(undisturbed.folder / "checkpoints/00000010/rank-0/shard.safetensors")
    read = _read_by_torch(whole / name / "checkpoints/00000010", tmp_path / "all", alone)
    weights_alone = {key: tensor for key, tensor in alone.items() if key.startswith("model/")}
    assert close({key: read[key] for key in weights_alone}, weights_alone)
    for key, tensor in alone.items():
        assert (read[key] - tensor).norm() <= 1e-2 * tensor.norm()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("name", ["split", "split experts"])
def test_torchs_own_reader_reads_the_parts_of_layers_that_are_split(
    others: Path, tmp_path: Path, sums: Path, name: str
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(ctx, **{**SHORT, **OTHERS[name][2]})
    alone = load_file(tmp_path / "checkpoints/00000002/rank-0/shard.safetensors")
    read = _read_by_torch(others / name / "checkpoints/00000002", tmp_path / "all", alone)
    for key, tensor in alone.items():
        if key.startswith("model/"):  # a token may go to another expert by rounding
            assert (read[key] - tensor).norm() <= 1e-2 * tensor.norm()


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_and_passes_learn_what_one_worker_learns(
    others: Path, tmp_path: Path, sums: Path, name: str
) -> None:
    _, _, changes = OTHERS[name]
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(ctx, **{**SHORT, **changes, "compile": None})
    loose = 1e-2 if changes.get("precision") == "bf16" else 1e-3
    losses = ctx.series("train/loss")
    assert losses_of(others / name, "whole") == pytest.approx(losses, rel=loose)
    of_gang, alone = weights(LocalContext(folder=others / name)), weights(ctx)
    assert {key: part.shape for key, part in of_gang.items()} == {
        key: part.shape for key, part in alone.items()
    }
    # With experts a token may go to another one by rounding, in any gang.
    assert name in {"bf16", "experts", "split experts"} or close(of_gang, alone)


def test_a_model_that_was_trained_before_is_dealt_out_too(
    others: Path, tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums, "model": undisturbed.output})
    pretrain(ctx, **{**SHORT, **SHORTER})
    losses = ctx.series("train/loss")
    assert losses_of(others / "input", "whole") == pytest.approx(losses, rel=1e-3)


def test_the_first_worker_alone_makes_the_model_and_nobody_where_there_is_a_checkpoint(
    whole: Path, chain: Path
) -> None:
    built = [_told(whole / "twice", "whole", rank)["built"] for rank in range(4)]
    assert built == [["llama"] * 2, [], [], []], "once without memory, then weight by weight"
    assert [_told(chain, "1", rank)["built"] for rank in range(4)] == [[]] * 4
