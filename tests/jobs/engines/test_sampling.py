from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from jobs.engines.sampling import choose
from orchestrator.engine import Sampling

SCORES = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - draws tokens


def draw(times: int, sampling: Sampling) -> Counter[int]:
    randoms = [seeded(seed) for seed in range(times)]
    chosen = choose(SCORES.repeat(times, 1), [sampling] * times, randoms)
    return Counter(choice.token for choice in chosen)


def test_tokens_come_as_often_as_they_are_likely() -> None:
    seen = draw(4000, Sampling(temperature=1.0))
    assert [seen[token] / 4000 for token in range(4)] == pytest.approx(
        [0.5, 0.3, 0.15, 0.05], abs=0.03
    )


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    assert set(draw(500, Sampling(top_p=0.79))) == {0, 1}
    assert set(draw(500, Sampling(top_p=0.81))) == {0, 1, 2}
    assert set(draw(500, Sampling(top_p=1e-9))) == {0}


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-6])
def test_no_heat_is_greedy(temperature: float) -> None:
    assert set(draw(50, Sampling(temperature=temperature))) == {0}


def test_a_row_is_not_moved_by_its_neighbours() -> None:
    plain, nucleus = Sampling(temperature=0.8), Sampling(temperature=1.5, top_p=0.5)
    alone = choose(SCORES[None], [plain], [seeded(7)])
    samplings = [nucleus, plain, Sampling(temperature=0)]
    among = choose(SCORES.repeat(3, 1), samplings, [seeded(7) for _ in range(3)])
    assert among[1] == alone[0]


def test_logprobs_are_the_models_own() -> None:
    sampling = Sampling(temperature=0.1, top_p=0.4, logprobs=2)
    (choice,) = choose(SCORES[None], [sampling], [seeded(0)])
    assert choice.token == 0
    assert choice.logprob == pytest.approx(SCORES[0].item(), abs=1e-6)
    assert [token for token, _ in choice.top] == [0, 1]
    (bare,) = choose(SCORES[None], [Sampling(logprobs=0)], [seeded(0)])
    assert bare.logprob is not None
    assert bare.top == ()
