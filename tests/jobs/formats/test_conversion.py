"""Whole folders: what is written, and who can read it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from jobs.engines import weights
from jobs.formats import folder as reading
from jobs.formats.choice import QuantizationChoice, choose
from jobs.formats.conversion import Conversion
from jobs.formats.folder import Folder
from jobs.formats.records import form_of
from jobs.formats.schemes import FORMATS, SCHEMES
from tests.jobs.formats.models import TINY, convert, logits, save_tiny

PLAIN_ONES = ("norm", "embed", "lm_head", "gate.weight", "e_score_correction_bias", "layernorm")


@pytest.fixture(scope="module", params=TINY)
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("trained"), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose sizes are no whole blocks."""
    changes = {"hidden_size": 48, "intermediate_size": 200, "num_attention_heads": 3}
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama", **changes, num_key_value_heads=3)


@pytest.mark.parametrize("form", ["bf16", "fp8", "fp8_ue8m0"])
def test_transformers_reads_the_same_model_as_this_reader_does(
    trained: Path, tmp_path: Path, form: str
) -> None:
    made = convert(trained, tmp_path / form, form)
    theirs = AutoModelForCausalLM.from_pretrained(made, dtype=torch.bfloat16)
    ours = weights.load(made, torch.bfloat16, "cpu")
    assert ours.dtype == theirs.dtype == torch.bfloat16
    for (name, one), (same, other) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(one, other), name
    assert torch.equal(logits(ours), logits(theirs))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_told_by_its_config_and_read_again(
    llama: Path, tmp_path: Path, form: str
) -> None:
    made = convert(llama, tmp_path / form, form)
    assert form_of(json.loads((made / "config.json").read_text())) == form
    before = weights.load(llama, "auto", "cpu").state_dict()
    after = weights.load(made, torch.float32, "cpu").state_dict()
    for name, weight in after.items():
        error = (weight - before[name]).norm() / before[name].norm()
        assert error < {"fp32": 1e-9, "bf16": 0.01, "int8": 0.02}.get(form, 0.04), name


def test_linear_layers_and_experts_alone_are_quantised(tmp_path: Path) -> None:
    made = convert(save_tiny(tmp_path / "a", "deepseek_v3"), tmp_path / "b", "fp8_ue8m0")
    stored = load_file(made / "model.safetensors")
    coded = {name for name, tensor in stored.items() if tensor.dtype == torch.float8_e4m3fn}
    assert {name.split(".")[-2] for name in coded} == {
        *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in coded
    plain = set(stored) - coded - {f"{name}_scale_inv" for name in coded}
    assert all(any(part in name for part in PLAIN_ONES) for name in plain)
    wide = {name for name in plain if stored[name].dtype == torch.float32}
    assert wide == {"model.layers.1.mlp.gate.e_score_correction_bias"}
    assert json.loads((made / "config.json").read_text())["quantization_config"] == {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "modules_to_not_convert": ["lm_head", "model.embed_tokens", "model.layers.1.mlp.gate"],
        "quant_method": "fp8",
        "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    }


@pytest.mark.parametrize("form", ["bf16", "fp8_ue8m0", "int8"])
def test_shards_hold_what_one_file_does(llama: Path, tmp_path: Path, form: str) -> None:
    one = convert(llama, tmp_path / "one", form)
    many = convert(llama, tmp_path / "many", form, shard=30_000)
    index = json.loads((many / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in many.glob("*.safetensors"))
    assert len(files) > 3
    assert files == sorted(set(index["weight_map"].values()))
    whole = load_file(one / "model.safetensors")
    parts = {name: load_file(many / file)[name] for name, file in index["weight_map"].items()}
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor.view(torch.uint8), parts[name].view(torch.uint8))
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    assert torch.equal(
        logits(weights.load(many, "auto", "cpu")), logits(weights.load(one, "auto", "cpu"))
    )


@pytest.mark.parametrize("form", ["bf16", "int8", "mxfp8"])
@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_write_the_files_that_one_writes(
    llama: Path, tmp_path: Path, form: str, workers: int
) -> None:
    source = Folder(llama)
    choice = choose(AutoConfig.from_pretrained(llama), source.specs, SCHEMES.get(form))
    conversion = Conversion(source=source, form=form, choice=choice, shard=30_000)
    hashes: dict[str, str] = {}
    for target in (tmp_path / "one", tmp_path / "all"):
        target.mkdir()
    one = conversion.run(tmp_path / "one")
    for rank in range(workers):
        share = replace(conversion, share=(rank, workers))
        written = share.run(tmp_path / "all")
        assert written.hashes
        assert not hashes.keys() & written.hashes.keys()
        assert written.size == one.size
        hashes |= written.hashes
    assert hashes == one.hashes
    index = "model.safetensors.index.json"
    assert (tmp_path / "all" / index).read_bytes() == (tmp_path / "one" / index).read_bytes()


@pytest.mark.parametrize("form", SCHEMES)
def test_pieces_make_no_difference(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_tiny(tmp_path / "a", "llama", intermediate_size=650)
    whole = convert(source, tmp_path / "b", form)
    monkeypatch.setattr(reading, "PIECE", 20_000)
    cut = convert(source, tmp_path / "c", form)
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    assert torch.equal(
        logits(weights.load(cut, "auto", "cpu")), logits(weights.load(whole, "auto", "cpu"))
    )


def test_smaller_blocks_are_made_of_larger_ones_without_loss(llama: Path, tmp_path: Path) -> None:
    large = convert(llama, tmp_path / "large", "fp8_ue8m0")
    small = convert(large, tmp_path / "small", "mxfp8")
    back = convert(small, tmp_path / "back", "fp8_ue8m0")
    expected = weights.load(large, torch.float32, "cpu").state_dict()
    for made in (small, back):
        for name, weight in weights.load(made, torch.float32, "cpu").state_dict().items():
            assert torch.equal(weight, expected[name]), name


def test_a_quantised_weight_takes_half_of_what_it_did_in_bf16(
    tmp_path: Path,
) -> None:
    source = save_tiny(tmp_path / "a", "llama", hidden_size=256, intermediate_size=512)
    sizes = {}
    for form in FORMATS:
        stored = load_file(convert(source, tmp_path / form, form) / "model.safetensors")
        sizes[form] = sum(t.nbytes for n, t in stored.items() if "_proj" in n)
    assert sizes["fp8"] == sizes["fp8_ue8m0"] == pytest.approx(sizes["bf16"] / 2, rel=0.001)
    assert sizes["mxfp8"] == pytest.approx(sizes["bf16"] / 2 * 33 / 32)
    assert sizes["int8"] == pytest.approx(sizes["bf16"] / 2, rel=0.02)


def test_a_weight_that_is_not_finite_is_named(llama: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    model = AutoModelForCausalLM.from_pretrained(llama)
    model.model.layers[0].mlp.up_proj.weight.data[3, 5] = float("nan")
    model.save_pretrained(tmp_path / "bad")
    with pytest.raises(ValueError, match=f"tensor {name} of .* has values that are not finite"):
        convert(tmp_path / "bad", tmp_path / "out", "fp8")


@pytest.mark.parametrize("form", ["fp8", "mxfp8", "int8", "bf16"])
def test_the_hashes_made_while_writing_are_those_of_the_files(
    llama: Path, tmp_path: Path, form: str
) -> None:
    source = Folder(llama)
    choice = choose(AutoConfig.from_pretrained(llama), source.specs)
    written = Conversion(source=source, form=form, choice=choice, threads=3, shard=30_000).run(
        tmp_path
    )
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    assert written.hashes == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def test_what_was_not_written_is_told(llama: Path, tmp_path: Path) -> None:
    from jobs.formats.sink import Sink

    source = Folder(llama)
    with (
        pytest.raises(ValueError, match=r"bytes of .* were never written"),
        Sink(tmp_path, source.specs),
    ):
        pass


def test_whole_numbers_stay_what_they_are(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    given = {"table": torch.arange(7), "one": torch.tensor(2.5), "none": torch.zeros(0, 3)}
    save_file(given, tmp_path / "model.safetensors")
    choice = QuantizationChoice(frozenset(), ())
    Conversion(source=Folder(tmp_path), form="bf16", choice=choice).run(tmp_path / "out")
    made = load_file(tmp_path / "out/model.safetensors")
    assert made["table"].tolist() == list(range(7))
    assert made["one"].dtype == torch.bfloat16
    assert made["one"].item() == 2.5
    assert made["none"].shape == (0, 3)
