"""What is loaded is what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
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
