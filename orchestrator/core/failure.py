"""Why an attempt ended: a closed set of kinds, and what each leads to by default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class FailureKind(StrEnum):
    """The reasons for which an attempt ends without a result."""

    INTERCONNECT = "interconnect"
    DEVICE_LOST = "device_lost"
    DEVICE_DEGRADED = "device_degraded"
    OUT_OF_MEMORY = "out_of_memory"
    UNSUPPORTED_OPERATOR = "unsupported_operator"
    NUMERICAL_DIVERGENCE = "numerical_divergence"
    SOFTWARE = "software"
    WORKER_LOST = "worker_lost"
    NODE_LOST = "node_lost"
    PLACEMENT = "placement"
    HANG = "hang"
    USER_CODE = "user_code"
    DATA = "data"
    SERVING = "serving"
    BUDGET = "budget"
    TIME = "time"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What a failed attempt leads to."""

    RETRY = "retry"
    FALL_BACK = "fall_back"
    STOP = "stop"


DEFAULT_ACTIONS: Mapping[FailureKind, Action] = MappingProxyType(
    {
        FailureKind.INTERCONNECT: Action.FALL_BACK,
        FailureKind.DEVICE_LOST: Action.FALL_BACK,
        FailureKind.DEVICE_DEGRADED: Action.FALL_BACK,
        FailureKind.OUT_OF_MEMORY: Action.FALL_BACK,
        FailureKind.UNSUPPORTED_OPERATOR: Action.FALL_BACK,
        FailureKind.NUMERICAL_DIVERGENCE: Action.STOP,
        FailureKind.SOFTWARE: Action.FALL_BACK,
        FailureKind.WORKER_LOST: Action.RETRY,
        FailureKind.NODE_LOST: Action.FALL_BACK,
        FailureKind.PLACEMENT: Action.FALL_BACK,
        FailureKind.HANG: Action.FALL_BACK,
        FailureKind.USER_CODE: Action.STOP,
        FailureKind.DATA: Action.STOP,
        FailureKind.SERVING: Action.FALL_BACK,
        FailureKind.BUDGET: Action.STOP,
        FailureKind.TIME: Action.STOP,
        FailureKind.CANCELLED: Action.STOP,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A classified reason why an attempt ended.

    Attributes:
        kind: What went wrong.
        evidence: The line that shows it, as it was printed.
        detail: Further lines (a traceback, the end of a log); may be empty.
        pool: Pool of the attempt.
        node: Node on which it showed first, where known.
        rank: Worker on which it showed first, where known.
        step: Training step at which it showed, where known.
    """

    kind: FailureKind
    evidence: str
    detail: str = ""
    pool: str | None = None
    node: str | None = None
    rank: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """A pattern in what an exception says (`Type: message`) and the kind that it shows."""

    pattern: re.Pattern[str]
    kind: FailureKind


def _sign(pattern: str, kind: FailureKind) -> Sign:
    return Sign(re.compile(pattern), kind)


# The first that fits counts. What fits none is the user's own code.
SIGNS: tuple[Sign, ...] = (
    _sign(r"^(Memory|OutOfMemory)Error\b", FailureKind.OUT_OF_MEMORY),
    _sign(r"(?i)\bout of memory\b", FailureKind.OUT_OF_MEMORY),
    _sign(r"^NotImplementedError: Could not run 'aten::", FailureKind.UNSUPPORTED_OPERATOR),
    _sign(r"^FloatingPointError\b", FailureKind.NUMERICAL_DIVERGENCE),
    _sign(r"^Dist(Backend|Network|Store)?Error\b", FailureKind.INTERCONNECT),
    _sign(r"(?i)\bgloo\b.*\b(closed|reset|timed out|refused)\b", FailureKind.INTERCONNECT),
    _sign(r"^ArtifactError\b", FailureKind.DATA),
)


def kind_of(exception: str, message: str) -> FailureKind:
    """Return what an exception of type `exception` (its bare name) with `message` shows."""
    said = f"{exception}: {message}"
    found = (sign.kind for sign in SIGNS if sign.pattern.search(said))
    return next(found, FailureKind.USER_CODE)
