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
    return _without(text, _parts(secrets))


def blotted(text: bytes, secrets: Iterable[str]) -> bytes:
    """Return `text`, as long as before, in which none of the values `secrets` stands."""
    for part in _parts(secrets):
        written = part.encode(errors="surrogateescape")
        text = text.replace(written, b"*" * len(written))
    return text


def masked(message: Said, secrets: Iterable[str]) -> Said:
    """Return a message in which none of the values `secrets` stands."""
    values = _parts(secrets)
    if not values:
        return message
    if isinstance(message, LogLine | Report):
        return replace(message, text=_without(message.text, values))
    if isinstance(message, Failed):
        failure = message.failure
        return replace(message, failure=_failure_without(failure, values))
    return message


def _parts(secrets: Iterable[str]) -> list[str]:
    """Return what is not to be said, longest first: each line is a message of its own."""
    lines = {line for value in secrets for line in value.splitlines()}
    return sorted((line for line in lines if len(line) >= SHORTEST), key=len, reverse=True)


def _failure_without(failure: Failure, values: Iterable[str]) -> Failure:
    evidence, detail = (_without(text, values) for text in (failure.evidence, failure.detail))
    return replace(failure, evidence=evidence, detail=detail)


def _without(text: str, values: Iterable[str]) -> str:
    for value in values:
        text = text.replace(value, MASK)
    return text
