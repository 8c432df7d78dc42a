"""What runs, stages and attempts can be, and what can happen to them: states and events.

Which event leads from which state to which is in `transitions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from orchestrator.core.artifact import ArtifactRef, ShippedCode
from orchestrator.core.failures.kinds import Action, Failure
from orchestrator.core.spec.policy import AS_PLANNED, Adjust, Bounds, Limits


class RunState(StrEnum):
    """State of a run."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StageState(StrEnum):
    """State of a stage. DECIDING: its attempt failed, and what follows is not decided yet."""

    PENDING = "pending"
    RUNNING = "running"
    DECIDING = "deciding"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """State of an attempt. WAITING: asked for, not placed on its pool yet."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# --- events of a run --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A controller began, or took over; `epoch` is higher than that of any before it.

    `seen` is when the one before it last showed life (seconds, epoch), where that is known. `by`
    is the reaper that had it go on, where nobody asked for it.
    """

    epoch: int
    seen: float | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked for the run to end."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunSucceeded:
    """Every stage succeeded."""


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A stage failed; `reason` is one plain sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunPaused:
    """Nothing goes on until somebody resumes the run; `reason` is one plain sentence."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReopened:
    """Somebody has the run go on after its end: `stages` begin again.

    Those of them that are in `anew` use no checkpoint. `limits` of stages and the `bounds` of the
    run hold from now on, as `overrides` say; attempts so far count against them no more, but time
    and money do. Jobs run `code` from now on, where it is given.
    """

    reason: str
    stages: tuple[str, ...]
    anew: tuple[str, ...] = ()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    bounds: Bounds | None = None
    overrides: tuple[str, ...] = ()
    code: ShippedCode | None = None


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """The run was cancelled, and nothing of it runs any more."""


# --- events of a stage ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageReused:
    """An earlier run made the same thing: its result stands for this stage's.

    `pool` is where that was, `adjust` what was done there otherwise than planned.
    """

    stage: str
    artifact: ArtifactRef | None
    metrics: Mapping[str, float]
    from_run: str
    pool: str = ""
    adjust: Adjust = AS_PLANNED


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """The stage goes on, on `pool`, not before `not_before` (seconds, epoch).

    `avoid` names the nodes of the pool on which no worker is placed.
    """

    stage: str
    pool: str
    not_before: float
    reason: str
    action: Action = Action.RETRY
    adjust: Adjust = AS_PLANNED
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StageHeld:
    """The stage could start but for `reason`: its pools are being emptied, or others go first."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageMoved:
    """The stage goes to `pool` before any attempt has failed: its pool is being emptied."""

    stage: str
    pool: str
    reason: str


@dataclass(frozen=True, slots=True)
class GateReached:
    """All stages before it are done; from now on the stage waits at its gate."""

    stage: str
    waits_for: str


@dataclass(frozen=True, slots=True)
class GateOpened:
    """What the stage waited for is there, or it goes on without."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageFailed:
    """The stage is given up."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StagePaused:
    """The stage waits for somebody to look: nobody knows what is wrong, or a limit is reached."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageSkipped:
    """A stage before it did not succeed."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageCancelled:
    """The run is being cancelled, and the stage had nothing running."""

    stage: str


# --- events of an attempt ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The cluster was asked for attempt `number` on `pool`."""

    stage: str
    number: int
    pool: str


@dataclass(frozen=True, slots=True)
class AttemptWaits:
    """The pool has no place for the attempt yet; `queued` where others hold it."""

    stage: str
    number: int
    reason: str
    queued: bool = False


@dataclass(frozen=True, slots=True)
class AttemptPlaced:
    """All workers run; `nodes` by rank. `software` has versions, by name, that rank 0 runs."""

    stage: str
    number: int
    nodes: tuple[str, ...]
    software: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptResumed:
    """The attempt goes on from the checkpoint of `step`, which some attempt of its stage made."""

    stage: str
    number: int
    step: int


@dataclass(frozen=True, slots=True)
class AttemptSaved:
    """The attempt's checkpoint of `step` is committed: less than this will not be lost."""

    stage: str
    number: int
    step: int


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """The attempt was asked to leave at its next checkpoint; its stage goes to another pool.

    `goes_to` names a better place: another pool, or its own, which has more room now.
    """

    stage: str
    number: int
    reason: str
    goes_to: str = ""


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """The attempt made its artifact."""

    stage: str
    number: int
    artifact: ArtifactRef | None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt ended without a result."""

    stage: str
    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class AttemptCancelled:
    """The attempt was ended because the run is being cancelled."""

    stage: str
    number: int


RunEvent: TypeAlias = (
    RunStarted
    | CancelRequested
    | RunSucceeded
    | RunFailed
    | RunPaused
    | RunReopened
    | RunCancelled
)
StageEvent: TypeAlias = (
    StageReused
    | RetryScheduled
    | StageHeld
    | StageMoved
    | GateReached
    | GateOpened
    | StageFailed
    | StagePaused
    | StageSkipped
    | StageCancelled
)
AttemptEvent: TypeAlias = (
    AttemptStarted
    | AttemptWaits
    | AttemptPlaced
    | AttemptResumed
    | AttemptSaved
    | LeaveRequested
    | AttemptSucceeded
    | AttemptFailed
    | AttemptCancelled
)
Event: TypeAlias = RunEvent | StageEvent | AttemptEvent

EVENTS: Mapping[str, type[Event]] = MappingProxyType(
    {
        kind.__name__: kind
        for group in (RunEvent, StageEvent, AttemptEvent)
        for kind in group.__args__
    }
)
