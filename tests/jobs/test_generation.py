"""Greedy is greedy, whatever a folder's generation config says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from jobs.data.tokenizer import load_tokenizer
from jobs.generation import greedy
from tests.jobs.local_context import LocalContext

HOST = torch.device("cpu")
PROMPTS = ([5, 6, 7], [9])


@pytest.fixture
def folder(undisturbed: LocalContext) -> Path:
    return undisturbed.output


def answers(folder: Path, config: GenerationConfig | None = None) -> list[str]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = model.generation_config = config or model.generation_config
    found = greedy(model, load_tokenizer(folder), PROMPTS, device=HOST, max_tokens=8)
    assert model.generation_config is before
    return found


def test_penalties_samples_and_lengths_of_the_folder_are_left_aside(folder: Path) -> None:
    own = GenerationConfig(
        do_sample=True, temperature=9.0, top_k=3, repetition_penalty=50.0, max_new_tokens=1
    )
    own.eos_token_id = AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id
    assert answers(folder, own) == answers(folder)


def test_each_of_several_ends_ends_an_answer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    first = tokenizer.encode(answers(folder)[0], add_special_tokens=False)
    assert len(first) > 1
    ends = [tokenizer.eos_token_id, first[0]]
    assert answers(folder, GenerationConfig(eos_token_id=ends))[0] in {
        "",
        tokenizer.decode(first[:1]),
    }


def test_a_tokenizer_without_a_pad_token_pads_all_the_same(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.pad_token = None
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert greedy(model, tokenizer, PROMPTS, device=HOST, max_tokens=8) == answers(folder)
