"""The model that is checked: two layers of the pipeline's own, at full width."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from jobs.qualification.reduced import EXPERTS, LAYERS, fresh, reduced
from jobs.qualification.vocabulary import Vocabulary
from jobs.training import model as models
from orchestrator.service.qualifying import model_parameters
from tests.jobs.formats import zoo

TYPES = (
    *("llama", "gpt2", "gemma3_text", "qwen3_next", "gpt_oss", "llama4_text", "mixtral", "olmoe"),
    *("qwen3_moe", "glm4_moe", "minimax_m2", "deepseek_v3", "deepseek_v4", "hy_v4"),
)


@pytest.mark.parametrize("architecture", TYPES)
def test_layers_and_experts_are_few_and_the_width_stays(architecture: str) -> None:
    whole = AutoConfig.for_model(architecture)
    with torch.device("meta"):
        model: Any = models.build(architecture, reduced(architecture, {}), Vocabulary())
    config = model.config
    assert config.num_hidden_layers == LAYERS
    assert config.hidden_size == (64 if architecture == "llama" else whole.hidden_size)
    assert len({name.split(".layers.")[1].split(".")[0] for name in layers_of(model)}) == LAYERS
    experts = [getattr(config, name, None) for name in ("n_routed_experts", "num_local_experts")]
    assert all(count is None or count <= EXPERTS for count in experts)


# What transformers can't make by its own default config, or not of two layers.
UNCUT = (
    *("blt", "cohere_compass_text", "dbrx", "dots1", "gemma4_assistant"),
    *(
        "gemma4_unified_assistant",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "lfm2_moe",
        "ministral",
        "musicgen",
    ),
    *("musicgen_melody", "nemotron", "prophetnet", "qwen4_exp", "qwen4_exp_text", "reformer"),
    "zamba",
)
NEED_TIMM = ("gemma3n",)


@pytest.mark.parametrize("architecture", zoo.TYPES)
def test_each_type_is_cut_or_refused_in_a_line_that_names_it(architecture: str) -> None:
    refused = ""
    try:
        with torch.device("meta"):
            model: Any = fresh(architecture, {}, 0)
    except ValueError as error:
        refused = str(error)
    if architecture not in NEED_TIMM:
        assert bool(refused) is (architecture in UNCUT), refused
    if refused:
        assert refused.startswith(f"a model of type {architecture!r} can't be cut to 2 layers")
        assert "\n" not in refused
        return
    text = model.config.get_text_config(decoder=True)
    cycles = text.H_cycles * (text.L_cycles + 1) if architecture == "hrm_text" else 1
    assert text.num_hidden_layers <= LAYERS * cycles


def layers_of(model: Any) -> list[str]:
    named = [name.replace(".h.", ".layers.") for name, _ in model.named_parameters()]
    return [name for name in named if ".layers." in name]


def test_a_layer_of_each_kind_is_kept() -> None:
    kept = reduced("deepseek_v3", {"num_hidden_layers": 61, "first_k_dense_replace": 3})
    assert kept["first_k_dense_replace"] == 1
    assert reduced("gpt_oss", {})["layer_types"] == ["sliding_attention", "full_attention"]
    kinds = ["full_attention"] * 3 + ["sliding_attention"]
    found = reduced("gemma3_text", {"num_hidden_layers": 4, "layer_types": kinds})
    assert found["layer_types"] == ["full_attention", "sliding_attention"]


def test_what_is_small_already_stays_as_it_is() -> None:
    assert reduced("llama", {"num_hidden_layers": 1}) == {"num_hidden_layers": 1}


def test_equal_seeds_give_equal_weights() -> None:
    one, same, other = (
        next(fresh("llama", {"hidden_size": 8}, seed).parameters()) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_an_architecture_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="architecture='lama'"):
        reduced("lama", {})


@pytest.mark.parametrize("architecture", TYPES)
def test_the_config_that_a_model_was_saved_with_is_taken(
    architecture: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(architecture, dtype="bfloat16").save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    found = model_parameters(told)
    assert found["architecture"] == architecture
    with torch.device("meta"):
        model: Any = models.build(
            architecture, reduced(architecture, found["model"]), Vocabulary()
        )
    assert model.config.num_hidden_layers == LAYERS
    assert model.config.vocab_size == told["vocab_size"]
