"""Every weight is quantized or named, and readers of other makers read the folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from jobs.formats.choice import QuantizationChoice, choose
from jobs.formats.headers import Spec
from jobs.formats.records import record
from jobs.formats.schemes import SCHEMES
from tests.jobs.formats import judges, zoo
from tests.jobs.formats.models import convert

# One of each kind: routers, experts one by one and in one tensor, convolutions, states, float32.
KINDS = (
    "qwen3_moe",
    "glm4_moe",
    "minimax_m2",
    "deepseek_v3",
    "deepseek_v4",
    "gpt_oss",
    "llama4_text",
)
MORE = ("qwen3_next", "granitemoe", "falcon_mamba", "phi3", "gpt2")


def unnamed(choice: QuantizationChoice, specs: dict[str, Spec]) -> set[str]:
    """Weights of two dimensions and more that are neither quantized nor named."""
    large = {name for name, spec in specs.items() if len(spec.shape) > 1}
    named = {*choice.ignored, *choice.quantized}
    return {
        name
        for name in large
        if not named & {name, name.removesuffix(".weight"), name.rpartition(".")[0]}
    }


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
@pytest.mark.parametrize("form", ["int8", "mxfp8"])
def test_every_weight_is_quantized_or_named(kind: str, form: str) -> None:
    config = zoo.small(kind)
    specs = zoo.on_disk(config)
    choice = choose(config, specs, SCHEMES[form])
    assert not unnamed(choice, specs)
    below = {f"{one}." for one in choice.ignored}
    assert not {n for n in choice.quantized if any(n.startswith(one) for one in below)}
    assert all(len(specs[name].shape) == 2 for name in choice.quantized)


# What transformers does not make so small, the first without a package of images (timm).
NOT_SMALL = (
    *("gemma3n", "gemma4_assistant", "gemma4_unified_assistant"),
    *("musicgen", "musicgen_melody"),
)


@pytest.mark.chaos
@pytest.mark.parametrize("kind", zoo.TYPES)
def test_of_each_type_every_weight_is_quantized_or_named(kind: str) -> None:
    if kind in NOT_SMALL:
        pytest.skip(f"transformers makes no small {kind}")
    config = zoo.small(kind)
    specs = zoo.on_disk(config)
    for form in ("int8", "mxfp8"):
        assert not unnamed(choose(config, specs, SCHEMES[form]), specs)


def test_what_is_one_tensor_on_disk_and_two_in_memory_is_quantized_as_both() -> None:
    config = zoo.small("hrm_text")
    choice = choose(config, zoo.on_disk(config), SCHEMES["int8"])
    for module in ("gate_proj", "up_proj"):
        name = f"model.H_module.layers.0.mlp.{module}"
        assert f"{name}.weight" in choice.quantized_in_memory
        assert name not in choice.ignored


@pytest.mark.parametrize("kind", KINDS)
def test_routers_and_embeddings_are_named_and_never_quantized(kind: str) -> None:
    config = zoo.small(kind)
    specs = zoo.on_disk(config)
    choice = choose(config, specs)
    routers = {n for n in specs if re.search(r"\.(gate|router)\.weight$", n)}
    assert routers
    assert not routers & choice.quantized
    assert {name.removesuffix(".weight") for name in routers} <= set(choice.ignored)
    assert not [name for name in choice.quantized if "embed" in name or "head" in name]
    assert "lm_head" in choice.ignored


@pytest.mark.parametrize("kind", ["gpt_oss", "llama4_text"])
def test_experts_in_one_tensor_are_named_as_each_reader_asks_for_them(kind: str) -> None:
    config = zoo.small(kind)
    choice = choose(config, zoo.on_disk(config))
    experts = [name for name in choice.ignored if name.endswith(".experts")]
    assert len(experts) == 2
    said: Any = record("int8", choice.ignored)
    patterns = [name.removeprefix("re:") for name in said["ignore"] if name.startswith("re:")]
    for name in experts:
        assert any(re.match(one, f"{name}.0.gate_proj") for one in patterns)
        assert not any(re.match(one, name.replace("experts", "shared_expert")) for one in patterns)


def test_names_on_disk_that_differ_from_those_in_memory_are_found() -> None:
    config = zoo.small("deepseek_v4")
    choice = choose(config, zoo.on_disk(config))
    assert {
        "model.layers.1.attn.wq_a.weight",
        "model.layers.1.ffn.experts.3.w2.weight",
    } <= choice.quantized
    assert {"model.layers.1.ffn.gate", "head", "lm_head"} <= set(choice.ignored)
    assert {
        "model.layers.1.attn.attn_sink",
        "model.layers.1.hc_attn_fn",
        "model.hc_head.hc_scale",
    } <= choice.in_float32


def test_layers_that_the_model_does_not_know_are_quantized_as_the_others(tmp_path: Path) -> None:
    config = zoo.small("deepseek_v3")
    specs = zoo.on_disk(config)
    further = {
        name.replace("layers.1.", "layers.2."): spec
        for name, spec in specs.items()
        if "layers.1." in name
    }
    plain = Spec(torch.float32, (64, 128))
    choice = choose(config, {**specs, **further, "model.layers.2.eh_proj.weight": plain})
    same = {name.replace("layers.2.", "layers.1.") for name in choice.quantized if ".2." in name}
    assert {name for name in choice.quantized if "layers.1." in name} <= same
    assert {"model.layers.2.eh_proj", "model.layers.2.mlp.gate"} <= set(choice.ignored)


def test_what_mixes_the_streams_of_hyper_connections_is_named_and_never_quantized() -> None:
    config = zoo.small("qwen4_exp_text")
    choice = choose(config, zoo.on_disk(config), SCHEMES["int8"])
    mixers = [name for name in choice.ignored if "hyper_connection" in name]
    assert [name for name in mixers if name.endswith("block_inject_weight")]
    assert not [name for name in choice.quantized if "hyper_connection" in name]
    assert [name for name in choice.quantized if "experts" in name]


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "jamba", "zamba"])
@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_mixers_of_mamba_1_are_named_and_never_quantized(kind: str, form: str) -> None:
    config = zoo.small(kind)
    specs = zoo.on_disk(config)
    choice = choose(config, specs, SCHEMES[form])
    assert not unnamed(choice, specs)
    mixers = {name.removesuffix(".A_log") for name in specs if name.endswith(".A_log")}
    inner = {name for name in specs if any(name.startswith(f"{one}.") for one in mixers)}
    assert any(name.endswith("in_proj.weight") for name in inner)
    assert not inner & choice.quantized
    assert {f"{one}.in_proj" for one in mixers} <= set(choice.ignored)
    assert bool(choice.quantized) == (kind in {"jamba", "zamba"}), "attention and experts are"


def test_mixers_of_mamba_2_are_quantized() -> None:
    config = zoo.small("mamba2")
    choice = choose(config, zoo.on_disk(config), SCHEMES["int8"])
    assert any(name.endswith("in_proj.weight") for name in choice.quantized)


@pytest.mark.parametrize("form", ["bf16", "fp8_ue8m0", "int8"])
def test_what_transformers_keeps_in_float32_is_written_so(tmp_path: Path, form: str) -> None:
    made = convert(zoo.save(zoo.small("deepseek_v4"), tmp_path / "a"), tmp_path / "b", form)
    stored = load_file(made / "model.safetensors")
    kept = {name.rpartition(".")[2] for name, t in stored.items() if t.dtype == torch.float32}
    assert {"hc_attn_fn", "hc_ffn_base", "hc_scale", "attn_sink"} <= kept
    codes = SCHEMES[form].codes if form in SCHEMES else torch.bfloat16
    assert stored["model.layers.1.attn.wq_a.weight"].dtype == codes


def test_further_layers_of_deepseek_are_written_with_scales_or_named(tmp_path: Path) -> None:
    source = zoo.save(zoo.small("deepseek_v3"), tmp_path / "a")
    stored = load_file(source / "model.safetensors")
    stored |= {
        name.replace("layers.1.", "layers.2."): tensor.clone()
        for name, tensor in stored.items()
        if "layers.1." in name
    }
    own = {"eh_proj": (64, 128), "embed_tokens": (96, 64), "shared_head.head": (96, 64)}
    stored |= {f"model.layers.2.{name}.weight": torch.rand(shape) for name, shape in own.items()}
    stored |= {f"model.layers.2.{name}.weight": torch.rand(64) for name in ("enorm", "hnorm")}
    save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    made = convert(source, tmp_path / "b", "int8")
    judges.decompressed(made)
    written = load_file(made / "model.safetensors")
    ignored = json.loads((made / "config.json").read_text())["quantization_config"]["ignore"]
    further = {name for name in stored if "layers.2." in name}
    assert further <= written.keys()
    named = {name for name in further if name.removesuffix(".weight") in ignored}
    assert {f"model.layers.2.{name}.weight" for name in (*own, "mlp.gate")} <= named
    coded = {name for name in further if written[name].dtype == torch.int8}
    assert coded == {name for name in further - named if stored[name].ndim > 1}
    assert "model.layers.2.mlp.experts.3.down_proj.weight" in coded


def test_weights_whose_columns_are_no_whole_groups_stay_as_they_are() -> None:
    config = AutoConfig.for_model("llama", **zoo.SMALL | {"intermediate_size": 48})
    choice = choose(config, zoo.on_disk(config), SCHEMES["mxfp8"])
    assert "model.layers.0.mlp.down_proj" in choice.ignored
    assert "model.layers.0.mlp.up_proj.weight" in choice.quantized
    experts = zoo.small("qwen3_moe")
    experts.moe_intermediate_size = 48
    choice = choose(experts, zoo.on_disk(experts), SCHEMES["mxfp8"])
    assert not [name for name in choice.quantized if "experts" in name]


@pytest.mark.parametrize("form", ["int8", "mxfp8", "fp8_ue8m0"])
@pytest.mark.parametrize("kind", ["deepseek_v3", "gpt_oss", "deepseek_v4"])
def test_compressed_tensors_reads_every_weight_as_we_do(
    kind: str, form: str, tmp_path: Path
) -> None:
    source = zoo.save(zoo.small(kind), tmp_path / "a")
    judges.decompressed(convert(source, tmp_path / "b", form))


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *(("deepseek_v3", form) for form in ("bf16", "fp8_ue8m0")),
        *(("deepseek_v4", form) for form in ("bf16", "fp8_ue8m0")),
        *(("gpt_oss", form) for form in ("bf16", "int8", "mxfp8", "fp8")),
    ],
)
def test_transformers_opens_it_with_the_same_scores(kind: str, form: str, tmp_path: Path) -> None:
    source = zoo.save(zoo.small(kind), tmp_path / "a")
    judges.opened(convert(source, tmp_path / "b", form))
