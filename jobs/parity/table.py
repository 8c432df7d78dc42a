"""The verdict, the table of figures and the worst prompts, as markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from jobs.parity.questions import Question
from jobs.parity.verdict import Threshold

WORST = 5
_LONGEST = 120  # characters of a prompt or an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPrompt:
    """A prompt, and how far the two models are apart after it: mean KL a place, nats."""

    prompt: str
    kl: float
    trained: str
    served: str
    right: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityVerdict:
    """All that the gate says. `why` is empty where it is passed.

    `computed` is the type in which the engine computes, `floor` names the passes that are its
    noise floor, `weights` says where the weights were read, `unseen` what could not be seen.
    """

    why: str
    format: str
    pools: tuple[str, str]
    engine: str
    emulated: bool
    computed: str
    places: int
    texts: int
    floor: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    accuracies: tuple[float, float] | None
    weights: str
    unseen: tuple[str, ...]
    worst: tuple[ComparedPrompt, ...]


def worst(
    prompts: Sequence[str],
    questions: Sequence[Question],
    apart: Sequence[float],
    answers: tuple[Sequence[str], Sequence[str]],
) -> tuple[ComparedPrompt, ...]:
    """Return the prompts after which the models are furthest apart; answers are trained, served.

    `apart` is the mean KL a place of each question, nats.
    """
    compared = [
        ComparedPrompt(
            prompt=prompts[at],
            kl=apart[at],
            trained=answers[0][at],
            served=answers[1][at],
            right=(questions[at].example or {}).get("answer"),
        )
        for at in range(len(questions))
    ]
    return tuple(
        sorted(compared, key=lambda prompt: (prompt.trained == prompt.served, -prompt.kl))[:WORST]
    )


def markdown(verdict: ParityVerdict) -> str:
    """Return the verdict for people, one plain sentence first."""
    trained, served = verdict.pools
    emulated = " (emulated)" if verdict.emulated else ""
    said = "Passed" if not verdict.why else f"Not passed: {verdict.why}"
    lines = [
        f"{said}.",
        "",
        (
            f"Trained: on {trained}. Served: {verdict.format} on {served}{emulated}, computed in "
            f"{verdict.computed} by `{verdict.engine}`. {verdict.places} places of "
            f"{verdict.texts} texts were compared. Noise floor: {'; '.join(verdict.floor)}. "
            f"Weights: of {verdict.weights}."
        ),
        "",
        "| figure | value | floor | limit | confidence | kept | |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
        *map(_row, verdict.thresholds),
    ]
    if verdict.accuracies is not None:
        before, after = verdict.accuracies
        lines += ["", f"Right answers: {before:.1%} trained, {after:.1%} served."]
    lines += [
        "",
        "## What could not be seen",
        "",
        *(f"- {sentence}" for sentence in verdict.unseen),
    ]
    lines += ["", "## Prompts after which they are furthest apart", ""]
    lines += [
        "| prompt | KL, nats | trained | served | right |",
        "| --- | ---: | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_prompt, verdict.worst), ""])


def as_json(verdict: ParityVerdict) -> str:
    """Return the verdict for programs; what is no finite number is a text."""
    return json.dumps(_finite(asdict(verdict)), indent=1, ensure_ascii=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _row(threshold: Threshold) -> str:
    limit = f"{'≥' if threshold.least else '≤'} {threshold.limit:.4g}"
    floor = "" if threshold.floor is None else f"{threshold.floor:.4g}"
    sure = (
        ""
        if threshold.confidence is None
        else f"{threshold.confidence:.1%} (≥ {threshold.target:.0%})"
    )
    kept = "yes" if threshold.kept else "**undecided**" if threshold.within else "**no**"
    figure = f"{threshold.name} | {threshold.value:.4g}"
    return f"| {figure} | {floor} | {limit} | {sure} | {kept} | {threshold.words} |"


def _prompt(compared: ComparedPrompt) -> str:
    cells = (
        compared.prompt,
        f"{compared.kl:.3g}",
        compared.trained,
        compared.served,
        compared.right or "",
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Return a text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:_LONGEST]
