"""How likely a text is, by the way on which an engine makes answers.

The same pass over the same cache: the prompt is read in large parts, each further token alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from jobs.engines.cache import SlotCache
from jobs.engines.forward import Forward
from orchestrator.engine import Score

READ_ALONE = 1024  # tokens a step where nobody waits


def check_text(tokens: Sequence[int], begin: int, max_context: int) -> None:
    """Refuse a text that can't be scored.

    Raises:
        ValueError: It is too long, or begins nowhere.
    """
    if not 1 <= begin < len(tokens):
        raise ValueError(f"begin={begin!r} is no place in a text of {len(tokens)} tokens after 0")
    if len(tokens) > max_context:
        raise ValueError(f"{len(tokens)} tokens are more than max_context={max_context!r}")


@torch.inference_mode()
def follow(
    run: Forward,
    cache: SlotCache,
    tokens: Sequence[int],
    begin: int,
    top: int,
    beat: Callable[[], object] = lambda: None,
) -> list[Score]:
    """Return a score for each token from place `begin` on; `cache` is an empty one.

    `beat` is called before each pass.
    """
    followed: list[Score] = []
    held = 0
    for place in (*range(READ_ALONE, begin, READ_ALONE), *range(begin, len(tokens))):
        beat()
        new = list(tokens[held:place])
        cache.cover(0, [held], len(new))
        scores = run([new], cache)[0]
        held = place
        if place >= begin:
            followed.append(score_of(scores, tokens[place], top))
    return followed


def score_of(scores: Tensor, token: int, top: int) -> Score:
    """Return what `scores` (vocabulary) say of `token`, and of the `top` likeliest ones."""
    logs = scores.float().log_softmax(-1)
    values, ids = logs.topk(min(top, len(logs)))
    return Score(float(logs[token]), tuple(ids.tolist()), tuple(values.tolist()))
