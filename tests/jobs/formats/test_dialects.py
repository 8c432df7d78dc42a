"""Folders as each reader wants them, by what the readers' own code asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.engines import weights
from jobs.formats import modelslim
from jobs.formats.folder import Folder
from jobs.formats.schemes import DIALECTS, scheme_for
from jobs.parity.weight_format import form_of
from tests.jobs.formats.models import convert, save_tiny


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("moe"), "deepseek_v3")


def made(source: Path, target: Path, form: str, dialect: str) -> tuple[Any, dict[str, Any]]:
    convert(source, target, form, dialect=dialect)
    config = json.loads((target / "config.json").read_text())
    return config.get("quantization_config"), load_file(target / "model.safetensors")


def ascend_kind(described: dict[str, Any], prefix: str, packed: dict[str, list[str]]) -> str:
    """What a layer is to vllm-ascend, by its rule: that of its shards, which must agree."""
    last = prefix.rpartition(".")[2]
    shards = [prefix.replace(last, shard) for shard in packed.get(last, [last])]
    kinds = {described[f"{shard}.weight"] for shard in shards}
    assert len(kinds) == 1, prefix
    return str(kinds.pop())


@pytest.mark.parametrize(("form", "kind"), modelslim.KINDS.items())
def test_vllm_ascend_finds_the_kind_of_every_layer(
    moe: Path, tmp_path: Path, form: str, kind: str
) -> None:
    said, stored = made(moe, tmp_path, form, "ascend-modelslim")
    assert said is None
    described = json.loads((tmp_path / modelslim.FILE).read_text())
    packed = {
        "gate_up_proj": ["gate_proj", "up_proj"],
        "fused": ["q_a_proj", "kv_a_proj_with_mqa"],
    }
    layer = "model.layers.1"
    for prefix in ("mlp.shared_experts.gate_up_proj", "self_attn.fused", "self_attn.o_proj"):
        assert ascend_kind(described, f"{layer}.{prefix}", packed) == kind
    for expert in range(4):
        assert described[f"{layer}.mlp.experts.{expert}.down_proj.weight"] == kind
    for prefix in ("model.layers.1.mlp.gate", "lm_head", "model.embed_tokens"):
        assert described[f"{prefix}.weight"] == "FLOAT"
    assert {name for name in described if "." in name} == set(stored)


def test_scales_on_ascend_have_the_shapes_that_its_layers_are_made_with(
    moe: Path, tmp_path: Path
) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    (tmp_path / "8").mkdir()
    _, stored = made(moe, tmp_path / "8", "int8", "ascend-modelslim")
    rows, columns = stored[name].shape
    assert stored[name].dtype == torch.int8
    assert stored[f"{name}_scale"].shape == stored[f"{name}_offset"].shape == (rows, 1)
    assert not stored[f"{name}_offset"].any()
    (tmp_path / "mx").mkdir()
    _, stored = made(moe, tmp_path / "mx", "mxfp8", "ascend-modelslim")
    assert stored[name].dtype == torch.float8_e4m3fn
    assert stored[f"{name}_scale"].dtype == torch.uint8
    assert stored[f"{name}_scale"].shape == (rows, columns // 32)
    assert json.loads((tmp_path / "mx" / modelslim.FILE).read_text())["group_size"] == 32


def test_sglang_reads_groups_of_32_as_blocks_of_its_own_method(moe: Path, tmp_path: Path) -> None:
    said, stored = made(moe, tmp_path, "mxfp8", "sglang")
    assert (said["quant_method"], said["weight_block_size"]) == ("mxfp8", [1, 32])
    assert said["activation_scheme"] == "dynamic"
    assert "model.layers.1.mlp.gate" in said["modules_to_not_convert"]
    scale = stored["model.layers.1.self_attn.o_proj.weight_scale_inv"]
    assert scale.dtype == torch.uint8


@pytest.mark.parametrize("form", ["int8", "mxfp8"])
def test_all_dialects_hold_the_same_model(moe: Path, tmp_path: Path, form: str) -> None:
    models = []
    for dialect in DIALECTS:
        folder = convert(moe, tmp_path / dialect, form, dialect=dialect)
        assert form_of(folder) == form
        models.append(weights.load(folder, torch.float32, "cpu").state_dict())
    for name, weight in models[0].items():
        assert all(torch.equal(other[name], weight) for other in models[1:]), name


@pytest.mark.parametrize(
    ("form", "dialect", "words"),
    [
        ("fp8", "ascend-modelslim", "is none that the readers of dialect='ascend-modelslim' know"),
        ("fp4", "vllm", "format='fp4' is none of bf16"),
        ("int8", "mindie", "dialect='mindie' is none of vllm, sglang, ascend-modelslim"),
    ],
)
def test_what_no_reader_of_a_dialect_knows_is_refused(form: str, dialect: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scheme_for(form, dialect)


def test_codes_with_an_offset_and_unknown_kinds_are_refused(moe: Path, tmp_path: Path) -> None:
    folder = convert(moe, tmp_path / "a", "int8", dialect="ascend-modelslim")
    stored = load_file(folder / "model.safetensors")
    stored["model.layers.1.self_attn.o_proj.weight_offset"][3] = 1
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"o_proj.weight_offset is not zero; only symmetric"):
        Folder(folder)
    (folder / modelslim.FILE).write_text('{"model_quant_type": "W4A8"}')
    with pytest.raises(ValueError, match=r"is 'W4A8'; W8A8_DYNAMIC, W8A8_MXFP8 are read here"):
        Folder(folder)
