"""What was recorded of a model, against what an engine that has loaded it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.endpoints import probes
from orchestrator.core.spec.hardware import Format

NAME = "proof.json"


@dataclass(frozen=True, slots=True)
class ProofText:
    """A text by its tokens, and the log-probability of each from place `begin` on."""

    tokens: tuple[int, ...]
    begin: int
    logprobs: tuple[float, ...]

    def of(self, scores: Sequence[float]) -> tuple[float, ...]:
        """Return those that compare, of the scores of all tokens after the first."""
        return tuple(scores[self.begin - 1 : self.begin - 1 + len(self.logprobs)])


@dataclass(frozen=True, slots=True)
class Proof:
    """The texts, and the mean KL divergence that the gate derived for this model, if it did."""

    texts: tuple[ProofText, ...] = ()
    kl_mean: float | None = None


NOTHING = Proof()


def read(folder: Path) -> Proof:
    """Return what is recorded in a folder; nothing where nothing is, or not in this form."""
    try:
        recorded = json.loads((folder / NAME).read_text("utf-8"))
        texts = tuple(
            ProofText(
                tuple(map(int, text["tokens"])),
                int(text["begin"]),
                tuple(map(float, text["logprobs"])),
            )
            for text in recorded["texts"]
        )
        derived = recorded.get("kl_mean")
        return Proof(texts, None if derived is None else max(float(derived), 0.0))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return NOTHING


def departure(
    proof: Proof,
    served: Sequence[Sequence[float]],
    form: Format,
    allowed: Mapping[str, float],
) -> str:
    """Return why what is served is not what was recorded; empty where it is.

    `served` are the scores of each text's tokens after the first, `allowed` the mean KL
    divergences that the parity gate allows at most.
    """
    pairs = zip(proof.texts, served, strict=True)
    compared = [text.of(scores) for text, scores in pairs]
    most = probes.limit(form, allowed, proof.kl_mean)
    return probes.apart([text.logprobs for text in proof.texts], compared, most)
