"""Scores of an engine are what its answers' tokens had, and what the model itself says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from jobs.engines.embedded import EmbeddedEngine
from tests.jobs.engines.tiny_llama import HARDWARE


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EmbeddedEngine]:
    made = EmbeddedEngine(folder, HARDWARE)
    yield made
    made.close()


def test_scores_of_the_whole_vocabulary_are_those_of_the_model(
    engine: EmbeddedEngine, folder: Path
) -> None:
    tokens = engine.encode("to be, or not to be: that is the question")
    scores = engine.score(tokens, 5, 10_000)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    assert len(scores) == len(tokens) - 5
    for place, score in enumerate(scores, start=5):
        found = torch.empty(engine.vocabulary)
        found[list(score.top)] = torch.tensor(score.logprobs)
        assert torch.allclose(found, logs[place - 1], atol=1e-4)
        assert score.logprob == pytest.approx(found[tokens[place]].item())


@pytest.mark.parametrize(
    ("begin", "length", "line"),
    [
        (0, 4, "begin=0 is no place in a text of 4 tokens after 0"),
        (4, 4, "begin=4 is no place"),
        (1, 600, "600 tokens are more than max_context=512"),
    ],
)
def test_what_can_not_be_scored_is_refused(
    engine: EmbeddedEngine, begin: int, length: int, line: str
) -> None:
    with pytest.raises(ValueError, match=line):
        engine.score([1] * length, begin, 1)
