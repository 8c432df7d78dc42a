"""What a worker says, without the values of its secrets: a job may print what it was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from orchestrator.core.failures.kinds import Failure
from orchestrator.messages import Failed, LogLine, Message, Report

MASK = "***"
SHORTEST = 6  # characters; what is shorter stands in many words
Said = TypeVar("Said", bound=Message)


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which none of the values `secrets` stands."""
    return _without(text, _values(secrets))


def masked(message: Said, secrets: Iterable[str]) -> Said:
    """Return a message in which none of the values `secrets` stands."""
    values = _values(secrets)
    if not values:
        return message
    if isinstance(message, LogLine | Report):
        return replace(message, text=_without(message.text, values))
    if isinstance(message, Failed):
        failure = message.failure
        return replace(message, failure=_failure_without(failure, values))
    return message


def _values(secrets: Iterable[str]) -> list[str]:
    return sorted((value for value in secrets if len(value) >= SHORTEST), key=len, reverse=True)


def _failure_without(failure: Failure, values: Iterable[str]) -> Failure:
    evidence, detail = (_without(text, values) for text in (failure.evidence, failure.detail))
    return replace(failure, evidence=evidence, detail=detail)


def _without(text: str, values: Iterable[str]) -> str:
    for value in values:
        for part in value.splitlines():  # each line that is printed is a message of its own
            if len(part) >= SHORTEST:
                text = text.replace(part, MASK)
    return text
