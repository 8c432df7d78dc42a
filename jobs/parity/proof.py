"""A few texts with what the served model says of them, for whoever loads it next.

An engine that has loaded the model is asked for the same, so that what was loaded wrongly is
found before anybody asks it. The file lies in the gate's artifact; in a folder of weights, where
it counts more, it may lie too.

proof.json      {"kl_mean": K, "texts": [{"tokens": [...], "begin": N, "logprobs": [...]}]}: what
                the mean KL divergence of this model might be, by the noise of its arithmetic, in
                nats; and of each token from place `begin` on its log-probability by those before
                it, in nats
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from jobs.parity.questions import Question
from orchestrator.engine import Score

PROOF_NAME = "proof.json"
TEXTS = 8
_LONGEST = 64  # tokens of a text


def write(
    folder: Path, questions: Sequence[Question], scores: Sequence[Sequence[Score]], kl_mean: float
) -> None:
    """Write the first few of the questions with their scores; none whose score is no number."""
    texts = [
        {
            "tokens": question.tokens[:_LONGEST],
            "begin": question.begin,
            "logprobs": [score.logprob for score in row[: _LONGEST - question.begin]],
        }
        for question, row in zip(questions, scores, strict=True)
        if question.begin < _LONGEST and all(math.isfinite(score.logprob) for score in row)
    ]
    text = json.dumps({"kl_mean": kl_mean, "texts": texts[:TEXTS]}, allow_nan=False)
    (folder / PROOF_NAME).write_text(f"{text}\n", "utf-8")
