"""What a verdict can't see, said beside it."""

from __future__ import annotations

from jobs.parity.comparison import Said
from jobs.parity.reading import Reference
from jobs.parity.served_engine import ENGINE, ServedNorms

ALWAYS = (
    "texts of other kinds and lengths than those of the data set: tools, images, long contexts",
    "sampling, and answers made together with others: scores are asked one text at a time",
    "other chips of the pool than the one that it ran on",
)


def unseen(
    reference: Reference, said: Said, weights: ServedNorms, computed: str, *, stands_in: bool
) -> tuple[str, ...]:
    """Return what could not be seen, by sentences for people."""
    sentences = list(ALWAYS)
    if stands_in:
        sentences.append("what an engine server makes of the folder: the embedded engine read it")
    if weights.source != ENGINE:
        sentences.append("the weights as the engine holds them: it tells nothing of them")
    else:
        sentences.append("within a block of 128 x 128 weights: what keeps its norm")
    if reference.experts and not said.experts:
        sentences.append("which experts the engine chooses: it tells nothing of them")
    if not computed:
        sentences.append("in which type the engine computes: its format's was taken")
    vocabulary = max((max(score.top) for row in reference.scores for score in row), default=0)
    if vocabulary >= reference.top:
        sentences.append(
            f"divergence among tokens beyond the likeliest {reference.top} of a place"
        )
    return tuple(sentences)
