"""Scores are changed, and tokens drawn, as transformers' own processors would have it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList
from transformers.generation import logits_process as foreign

from jobs.engines.processors import Processor, needed, processed
from jobs.engines.sampling import choose, likelihoods, randomness
from orchestrator.engine import Sampling

VOCABULARY = 50
ENDS = frozenset({3, 7})


def scores_of(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def processor(sampling: Sampling, prompt: list[int], made: list[int]) -> Processor | None:
    if not needed(sampling):
        return None
    mine = Processor(sampling, prompt, None)
    for token in made:
        mine.take(token)
    return mine


def by_transformers(
    sampling: Sampling, prompt: list[int], made: list[int], scores: torch.Tensor
) -> torch.Tensor:
    """Return how likely each token is by transformers, in the order of vLLM."""
    steps: list[Any] = []
    if sampling.logit_bias:
        biases = {(token,): bias for token, bias in sampling.logit_bias.items()}
        steps.append(foreign.SequenceBiasLogitsProcessor(biases))
    if sampling.min_tokens:
        early = sorted(ENDS | set(sampling.stop_token_ids))
        steps.append(
            foreign.MinNewTokensLengthLogitsProcessor(len(prompt), sampling.min_tokens, early)
        )
    if sampling.repetition_penalty != 1:
        steps.append(foreign.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(foreign.TemperatureLogitsWarper(sampling.temperature))
    if sampling.min_p:
        steps.append(foreign.MinPLogitsWarper(sampling.min_p))
    if sampling.top_k:
        steps.append(foreign.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(foreign.TopPLogitsWarper(sampling.top_p))
    ids = torch.tensor([[*prompt, *made]])
    return LogitsProcessorList(steps)(ids, scores.clone()).softmax(-1)


tokens = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.2, 2),
    top_p=st.sampled_from([1.0, 0.95, 0.6, 0.05]),
    top_k=st.sampled_from([0, 1, 5, 49, 80]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 0.7, 1.3, 2.0]),
    logit_bias=st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-9, 9), max_size=4),
    min_tokens=st.sampled_from([0, 4]),
    stop_token_ids=st.sampled_from([(), (9,)]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(samplings, tokens, tokens), min_size=1, max_size=4), st.integers(0, 99))
def test_any_mixture_of_rows_is_as_likely_as_transformers_has_it(
    rows: list[tuple[Sampling, list[int], list[int]]], seed: int
) -> None:
    scores = scores_of(seed, len(rows))
    shaped = processed(scores, [processor(*row) for row in rows], ENDS)
    ours = likelihoods(shaped, [sampling for sampling, _, _ in rows])
    ours = ours / ours.sum(-1, keepdim=True)
    for number, row in enumerate(rows):
        theirs = by_transformers(*row, scores[number : number + 1])[0]
        assert torch.allclose(ours[number], theirs, atol=1e-5), row
    assert torch.equal(scores, scores_of(seed, len(rows))), "the model's own scores stay"


def test_penalties_of_the_answer_are_those_of_openai() -> None:
    """`mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence`, of the answer alone."""
    sampling = Sampling(frequency_penalty=0.7, presence_penalty=-0.4)
    prompt, made = [1, 2, 3], [5, 5, 9, 5]
    scores = scores_of(1)
    expected = scores.clone()
    expected[0, 5] -= 3 * 0.7 - 0.4
    expected[0, 9] -= 0.7 - 0.4
    shaped = processed(scores, [processor(sampling, prompt, made)], ENDS)
    assert torch.allclose(shaped, expected)


def test_a_token_that_is_forbidden_never_comes() -> None:
    likeliest = int(scores_of(2).argmax())
    sampling = Sampling(logit_bias={likeliest: -100}, temperature=0)
    shaped = processed(scores_of(2), [processor(sampling, [1], [])], ENDS)
    assert shaped[0, likeliest] == -torch.inf
    (choice,) = choose(shaped, [sampling], [randomness(0)])
    assert choice.token == int(scores_of(2)[0].topk(2).indices[1])


def test_no_end_comes_before_its_time() -> None:
    sampling = Sampling(min_tokens=2, stop_token_ids=(9,))
    for made, forbidden in (([], {3, 7, 9}), ([1], {3, 7, 9}), ([1, 1], set())):
        shaped = processed(scores_of(3), [processor(sampling, [1], made)], ENDS)
        assert set((shaped[0] == -torch.inf).nonzero().flatten().tolist()) == forbidden


def test_plain_rows_are_left_as_they_are() -> None:
    scores = scores_of(4, 2)
    assert processed(scores, [None, None], ENDS) is scores
    mixed = processed(scores, [None, processor(Sampling(min_tokens=1), [1], [])], ENDS)
    assert torch.equal(mixed[0], scores[0])


@pytest.mark.parametrize("seed", [-5, -2, 5, 1 << 62])
def test_each_seed_has_random_numbers_of_its_own(seed: int) -> None:
    assert randomness(seed).random() == randomness(seed).random()
    assert randomness(seed).random() != randomness(-seed).random()


@pytest.mark.parametrize("seed", [None, -1])
def test_no_seed_and_minus_one_are_none(seed: int | None) -> None:
    random.seed(0)
    assert randomness(seed).random() != randomness(seed).random()
