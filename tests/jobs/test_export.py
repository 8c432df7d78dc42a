from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.data.dataset import TOKENIZER_NAME
from jobs.export import export
from tests.jobs.local_context import LocalContext

CHAT = [{"role": "user", "content": "What is 12 + 34?"}]


def exported(folder: Path, model: Path, **params: str) -> LocalContext:
    ctx = LocalContext(folder=folder, inputs={"model": model})
    export(ctx, **params)
    return ctx


def logits(folder: Path) -> torch.Tensor:
    """What transformers makes of a folder, in the precision that it is stored in."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt")
    with torch.no_grad():
        out: torch.Tensor = model(**asked).logits
    return out.float()


def test_transformers_opens_it_unchanged_with_the_same_logits(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    trained = logits(undisturbed.output)

    assert logits(exported(tmp_path / "a", undisturbed.output, format="fp32").output).equal(
        trained
    )
    rounded = logits(exported(tmp_path / "b", undisturbed.output).output)
    assert torch.allclose(rounded, trained, atol=0.15)


def test_the_folder_has_all_that_an_engine_needs(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    folder = exported(tmp_path, undisturbed.output).output
    said = json.loads((folder / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trained_with = AutoTokenizer.from_pretrained(sums / TOKENIZER_NAME)

    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert said["eos_token_id"] == tokenizer.eos_token_id
    assert said["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.chat_template == trained_with.chat_template
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_an_unknown_format_is_refused_with_those_that_exist(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    with pytest.raises(ValueError, match="format='fp4' is none of bf16, fp32"):
        exported(tmp_path, undisturbed.output, format="fp4")
