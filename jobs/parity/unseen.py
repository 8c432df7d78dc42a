"""What a verdict can't see, said beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jobs.formats.schemes import SCHEMES
from jobs.parity.comparison import Responses
from jobs.parity.reading import Reference
from jobs.parity.served_engine import ENGINE, ServedNorms

# `num_experts`, `n_routed_experts`, `num_local_experts`, `moe_num_experts`, ...
_EXPERTS = re.compile(r"(?:^|_)(?:num|n)_(?:\w+_)?experts$")
ALWAYS = (
    "texts of other kinds and lengths than those of the data set: tools, images, long contexts",
    "sampling, and answers made together with others: scores are asked one text at a time",
    "other chips of the pool than the one that it ran on",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedEngine:
    """What is known of the engine that was asked.

    Attributes:
        form: Format of the weights that it has read.
        computed: The type in which it computes; empty where it does not tell.
        stands_in: Whether it stands in for an engine server.
        cached: Whether it reads a text as servers do, by a cache of what it has read.
        refusal: Why the embedded engine does not, in its own words.
        further: The layers of the folder that predict further tokens, which it leaves out.
    """

    form: str
    computed: str
    stands_in: bool
    cached: bool = True
    refusal: str = ""
    further: tuple[str, ...] = ()


def unseen(
    reference: Reference, responses: Responses, weights: ServedNorms, engine: AskedEngine
) -> tuple[str, ...]:
    """Return what could not be seen, by sentences for people."""
    sentences = [*ALWAYS, *_of_engine(engine)]
    if weights.source != ENGINE:
        sentences.append("the weights as the engine holds them: it tells nothing of them")
    else:
        sentences.append("of weights what keeps the norms and the sums of rows and columns")
    if reference.experts and not responses.experts:
        sentences.append("which experts the engine chooses: it tells nothing of them")
    elif not reference.experts and has_experts(reference.config):
        sentences.append("which experts are chosen: the code of this type tells nothing of them")
    vocabulary = max((max(score.top) for row in reference.scores for score in row), default=0)
    if vocabulary >= reference.top:
        sentences.append(
            f"divergence among tokens beyond the likeliest {reference.top} of a place"
        )
    return tuple(sentences)


def _of_engine(engine: AskedEngine) -> Iterator[str]:
    """Yield what the engine that was asked hides."""
    reader = "the embedded engine" if engine.cached else "transformers alone"
    if engine.stands_in:
        yield f"what an engine server makes of the folder: {reader} read it"
    if engine.stands_in and engine.form in SCHEMES:
        yield (
            "the noise of activations in 8 bits: a server may quantize what goes into a layer, "
            f"and {reader} does not"
        )
    if not engine.cached:
        why = f" (the embedded engine refuses: {engine.refusal})" if engine.refusal else ""
        yield f"a cache, or states: each token was made by reading the whole text anew{why}"
    if engine.further:
        yield f"layers that predict further tokens: {', '.join(engine.further)}"
    if not engine.computed:
        yield "in which type the engine computes: its format's was taken"


def has_experts(config: Mapping[str, object]) -> bool:
    """Return whether the fields of a config, or of a part of it, name several experts."""
    for name, value in config.items():
        if isinstance(value, Mapping) and has_experts(value):
            return True
        counts = isinstance(value, int) and not isinstance(value, bool) and value > 1
        if counts and _EXPERTS.search(name):
            return True
    return False
