"""Compares an engine's way through a model with the model's own forward pass, on a fixed prompt.

The engine reads, reads on, and then decodes, in two rows of different lengths, as it does for
answers. A kernel that is wrong on some device, a cache that mixes rows up, or weights that came
in wrongly, show here before anybody is served.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor

from jobs.engines import routing
from jobs.engines.border import attempt
from jobs.engines.cache import SlotCache
from jobs.engines.forward import Forward
from jobs.engines.type_limits import vocabulary_of

# Tokens that each pass reads in the first row and in the second.
COURSE = ((12, 11), (8, 0), (0, 8), (1, 1), (1, 1), (0, 1), (1, 0))
# Share of the scores' own spread. Another order of sums costs some 1e-6 in float32 and 1e-2 in
# bfloat16, in 30 layers 0.15; the scores of a wrong pass differ by about 1.4 times their spread.
ALLOWED = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 3e-1}
# Where two experts are as good, rounding to 16 bits chooses: for few prompts, and a wrong pass is
# wrong for all of them.
PROMPTS = 4
LENGTH = 32  # tokens of a plain prompt


def check(model: Any, run: Forward, cache: SlotCache) -> None:  # noqa: ANN401 - any causal language model
    """Compare both ways; the cache then knows what a token takes.

    A model with experts, computed in 16 bits, is compared on up to `PROMPTS` prompts, and is right
    where one of them comes out right.

    Raises:
        ValueError: They differ, or the scores are no numbers.
    """
    rounds = model.dtype != torch.float32 and routing.has_experts(model)
    worst = inf
    for number in range(PROMPTS if rounds else 1):
        worst = min(worst, _apart(model, run, cache, prompt(vocabulary_of(model.config), number)))
        if worst <= ALLOWED[model.dtype]:
            return
    raise ValueError(
        f"the engine's log-probabilities for a plain prompt differ by {worst:.2g} of their spread "
        f"from those of the model's own forward pass; rounding is {ALLOWED[model.dtype]:g} at most"
    )


def _apart(model: Any, run: Forward, cache: SlotCache, tokens: list[int]) -> float:  # noqa: ANN401 - as above
    """Return how far the furthest place of a prompt is, as a share of its scores' spread."""
    expected = by_model(model, tokens)
    try:
        return max(difference(at, expected[place]) for place, at in _by_pass(run, cache, tokens))
    except (AttributeError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"the engine can't run a {type(model).__name__}: {reason}") from error


@torch.inference_mode()
def alive(run: Forward, cache: SlotCache, vocabulary: int) -> str:
    """Return what is wrong with a pass over the plain prompt; nothing where it has scores."""
    tokens = prompt(vocabulary)

    def try_out() -> bool:
        cache.cover(0, [0], len(tokens))
        return bool(run([tokens], cache).isfinite().all())

    finite = attempt(try_out)
    if isinstance(finite, Exception):
        return f"a step for a plain prompt failed: {finite}"
    return "" if finite else "the scores for a plain prompt are not finite"


def prompt(vocabulary: int, number: int = 0) -> list[int]:
    """Return a plain prompt; each number has its own."""
    return [(11 + 7919 * (place + LENGTH * number)) % vocabulary for place in range(LENGTH)]


@torch.inference_mode()
def by_model(model: Any, tokens: list[int]) -> Tensor:  # noqa: ANN401 - as above
    """Return the log-probabilities (place, vocabulary) that the model's own forward gives.

    Raises:
        ValueError: They are no numbers.
    """
    ids = torch.tensor([tokens], device=model.device)
    expected = _logs(model(input_ids=ids, use_cache=False).logits[0])
    if not expected.isfinite().all():
        raise ValueError("the model's scores for a plain prompt are not finite")
    return expected


@torch.inference_mode()
def _by_pass(run: Forward, cache: SlotCache, tokens: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield the log-probabilities that the engine's way gives, with their places."""
    held = [0, 0]
    for steps in COURSE:
        rows = [row for row in (0, 1) if steps[row]]
        begins = [held[row] for row in rows]
        new = [tokens[held[row] : held[row] + steps[row]] for row in rows]
        cache.cover(rows[0], begins, max(map(len, new)))
        for row, logs in zip(rows, _logs(run(new, cache)), strict=True):
            held[row] += steps[row]
            yield held[row] - 1, logs


def _logs(scores: Tensor) -> Tensor:
    return scores.float().log_softmax(-1)


def difference(logprobs: Tensor, expected: Tensor) -> float:
    """Return how far log-probabilities are from the expected ones, as a share of their spread."""
    spread = float((expected - expected.mean()).norm())
    return float((logprobs - expected).norm()) / max(spread, 1e-3 * sqrt(len(expected)))
