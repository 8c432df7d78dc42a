"""What a failure is taken for, and what follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.failures.explain import explain
from orchestrator.core.failures.kinds import (
    TRANSIENT,
    WHERE,
    Action,
    Failure,
    FailureKind,
    default_action,
)
from orchestrator.core.failures.log_excerpt import Excerpt
from orchestrator.core.settings import Settings

Json = Any  # plain values
# What a case may call a kind that has become finer since.
COARSER: Mapping[FailureKind, frozenset[str]] = {
    FailureKind.STORAGE: frozenset({"data", "software"}),
    FailureKind.SET_UP: frozenset({"software"}),
    FailureKind.HOST_MEMORY: frozenset({"out_of_memory"}),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be explained, and what is right, where that is known."""

    excerpt: Excerpt
    expected: tuple[str, ...] | None = None


def explained(case: Case, settings: Settings) -> dict[str, Json]:
    """Return the kind, the sign, how sure and how lasting, and what follows, as plain values."""
    failure = explain(case.excerpt, tuple(settings.signatures.values()))
    kind, action = failure.kind, _follows(failure)
    judgement: dict[str, Json] = {
        "kind": str(kind),
        "where": str(WHERE[kind]),
        "sign": failure.sign,
        "pattern": _pattern(failure, settings),
        "certain": failure.certain,
        "transient": kind in TRANSIENT,
        "evidence": failure.evidence,
        "follows": str(action),
    }
    differing = {
        stage.name: str(stage.on_failure[kind])
        for stage in settings.pipeline.stages
        if stage.on_failure.get(kind, action) is not action
    }
    if differing:
        judgement["stages"] = differing
    if case.expected is not None:
        judgement["expected"] = list(case.expected)
        judgement["right"] = bool({str(kind), *COARSER.get(kind, ())} & set(case.expected))
    return judgement


def _follows(failure: Failure) -> Action:
    """Return what follows by itself: the user's code ends a stage only once that is certain."""
    if failure.kind is FailureKind.USER_CODE and not failure.certain:
        return Action.ESCALATE
    return default_action(failure)


def _pattern(failure: Failure, settings: Settings) -> str:
    signature = settings.signatures.get(failure.sign)
    return signature.pattern if signature else ""
