"""What is loaded is what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from jobs.engines import weights
from tests.jobs.formats import zoo
from tests.jobs.formats.models import convert

EMBEDDINGS = "model.embed_tokens.weight"


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_the_row_of_the_padding_token_is_the_stored_one(form: str, tmp_path: Path) -> None:
    source = zoo.save(zoo.small("youtu"), tmp_path / "source")
    made = convert(source, tmp_path / form, form)
    stored = load_file(made / "model.safetensors")[EMBEDDINGS]
    model = weights.load(made, torch.bfloat16, "cpu")
    assert torch.equal(model.state_dict()[EMBEDDINGS], stored)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_transformers_itself_clears_that_row(tmp_path: Path) -> None:
    """Where it does so no more, nothing is to be put back."""
    source = zoo.save(zoo.small("youtu"), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(source).get_input_embeddings().weight
    changed = (theirs != load_file(source / "model.safetensors")[EMBEDDINGS]).any(1)
    assert changed.nonzero().flatten().tolist() == [0]


def with_layers_after_the_last(folder: Path, kind: str, field: str, further: int) -> Path:
    """Save a small model of two layers and, as released folders have them, some behind those."""
    return add_layers(zoo.save(zoo.small(kind), folder / "whole"), field, further)


def add_layers(source: Path, field: str, further: int) -> Path:
    """Put layers behind the second and last one of a model's folder, and say so of one."""
    tensors = load_file(source / "model.safetensors")
    last = {name: tensor for name, tensor in tensors.items() if name.startswith("model.layers.1.")}
    hidden = tensors[EMBEDDINGS].shape[1]
    for number in range(2, 2 + further):
        prefix = f"model.layers.{number}."
        tensors |= {
            name.replace("model.layers.1.", prefix): tensor.clone()
            for name, tensor in last.items()
        }
        tensors[f"{prefix}eh_proj.weight"] = torch.randn(hidden, 2 * hidden)
        for name in ("enorm", "hnorm", "shared_head.norm"):
            tensors[f"{prefix}{name}.weight"] = torch.ones(hidden)
        tensors[f"{prefix}embed_tokens.weight"] = tensors[EMBEDDINGS].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, field: 1}))
    return source


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("deepseek_v3", "num_nextn_predict_layers"),
        ("glm4_moe", "num_nextn_predict_layers"),
        ("mimo_v2_flash", "num_mtp_layers"),
    ],
)
def test_a_layer_that_predicts_tokens_after_the_next_is_passed_over(
    tmp_path: Path, kind: str, field: str
) -> None:
    source = with_layers_after_the_last(tmp_path, kind, field, 1)
    tokens = torch.arange(3, 30)[None]
    theirs = AutoModelForCausalLM.from_pretrained(source).eval()
    model = weights.load(source, torch.float32, "cpu")
    assert torch.equal(model(tokens).logits, theirs(tokens).logits)
    assert weights.further_layers(source) == ("model.layers.2",)
    weights.say_no_further_layers(model)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())[field] == 0
    assert weights.further_layers(tmp_path / "saved") == ()


def test_a_layer_more_than_the_config_says_is_superfluous(tmp_path: Path) -> None:
    source = with_layers_after_the_last(tmp_path, "deepseek_v3", "num_nextn_predict_layers", 2)
    with pytest.raises(ValueError, match=r"has unexpected tensors: model\.layers\.3\."):
        weights.load(source, torch.float32, "cpu")
