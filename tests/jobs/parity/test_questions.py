"""What is asked: rows of which training learns, and texts for which the model has places."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config

from jobs.data.dataset import IGNORE, TOKENIZER_NAME
from jobs.data.tokenizer import load_tokenizer
from jobs.parity.questions import choose
from jobs.parity.reference import measure
from orchestrator.job import ParityError
from tests.jobs.local_context import LocalContext
from tests.jobs.parity.conftest import check


def test_a_row_that_is_labelled_at_its_first_token_alone_is_no_question(
    sums: Path, tmp_path: Path, undisturbed: LocalContext
) -> None:
    data = Path(shutil.copytree(sums, tmp_path / "data"))
    path = data / "test.safetensors"
    arrays = load_file(path)
    arrays["labels"][:3] = IGNORE
    arrays["labels"][:3, 0] = arrays["tokens"][:3, 0]
    save_file(arrays, path)
    rows = len(arrays["labels"])
    asked = choose(data, "test", rows, most=64, tasks=True)
    assert len(asked) == rows - 3
    assert all(1 <= question.begin < len(question.tokens) for question in asked)
    inputs = {"data": data, "model": undisturbed.output}
    ctx = LocalContext(folder=tmp_path / "reference", inputs=inputs)
    assert measure(ctx, questions=4, max_tokens=2)["reference/questions"] == 4


@pytest.mark.parametrize(
    ("positions", "max_tokens", "said"),
    [
        (4, 4, r"a text of \d+ tokens is more than the model's 4 positions"),
        (30, 28, r"a prompt of \d+ tokens and max_tokens=28 of answer are more than the .* 30"),
    ],
)
def test_a_text_for_which_the_model_has_no_places_is_refused_in_a_line(
    sums: Path, tmp_path: Path, positions: int, max_tokens: int, said: str
) -> None:
    tokenizer = load_tokenizer(sums / TOKENIZER_NAME)
    sizes: Any = {"n_positions": positions, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=len(tokenizer), **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    inputs = {"data": sums, "model": tmp_path / "model"}
    ctx = LocalContext(folder=tmp_path / "reference", inputs=inputs)
    with pytest.raises(ValueError, match=said):
        measure(ctx, questions=4, max_tokens=max_tokens)


@pytest.mark.parametrize("max_context", [4, 8])
def test_an_engine_with_too_small_a_context_is_refused_in_a_line(
    context: Callable[..., LocalContext], max_context: int
) -> None:
    said = f"refuses: max_context={max_context} is too few: an engine is proven on a prompt of 32"
    with pytest.raises(ParityError, match=said):
        check(context(), options={"max_context": max_context})


def test_a_question_that_the_engine_has_no_room_for_is_refused_in_a_line(
    context: Callable[..., LocalContext],
) -> None:
    with pytest.raises(ParityError, match=r"^the engine of pool 'ascend' refuses a question: \d+"):
        check(context(), options={"cache_tokens": 8})
