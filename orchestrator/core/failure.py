"""Why an attempt ended: a closed set of kinds, and what each leads to by default."""

from __future__ import annotations

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
    PARITY = "parity"
    SERVING = "serving"
    ROLLED_BACK = "rolled_back"
    DRAINED = "drained"
    CONTROLLER_LOST = "controller_lost"
    BUDGET = "budget"
    TIME = "time"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What a failed attempt leads to.

    RETRY here after a back-off; OTHER_NODES of the same pool; FALL_BACK to the next pool of the
    role; LOWER_BATCH here, more micro-batches making up the same batch; ROLL_BACK here, to an
    earlier checkpoint and with a lower learning rate; STOP.
    """

    RETRY = "retry"
    OTHER_NODES = "other_nodes"
    FALL_BACK = "fall_back"
    LOWER_BATCH = "lower_batch"
    ROLL_BACK = "roll_back"
    STOP = "stop"


DEFAULT_ACTIONS: Mapping[FailureKind, Action] = MappingProxyType(
    {
        FailureKind.INTERCONNECT: Action.FALL_BACK,
        FailureKind.DEVICE_LOST: Action.OTHER_NODES,
        FailureKind.DEVICE_DEGRADED: Action.OTHER_NODES,
        FailureKind.OUT_OF_MEMORY: Action.LOWER_BATCH,
        FailureKind.UNSUPPORTED_OPERATOR: Action.FALL_BACK,
        FailureKind.NUMERICAL_DIVERGENCE: Action.ROLL_BACK,
        FailureKind.SOFTWARE: Action.FALL_BACK,
        FailureKind.WORKER_LOST: Action.RETRY,
        FailureKind.NODE_LOST: Action.OTHER_NODES,
        FailureKind.PLACEMENT: Action.FALL_BACK,
        FailureKind.HANG: Action.FALL_BACK,
        FailureKind.USER_CODE: Action.STOP,
        FailureKind.DATA: Action.STOP,
        FailureKind.PARITY: Action.STOP,
        FailureKind.SERVING: Action.FALL_BACK,
        FailureKind.ROLLED_BACK: Action.STOP,
        FailureKind.DRAINED: Action.FALL_BACK,
        FailureKind.CONTROLLER_LOST: Action.RETRY,
        FailureKind.BUDGET: Action.STOP,
        FailureKind.TIME: Action.STOP,
        FailureKind.CANCELLED: Action.STOP,
    }
)


# What these kinds end is not the attempt's own fault: it doesn't count against the limit.
UNCOUNTED: frozenset[FailureKind] = frozenset({FailureKind.DRAINED, FailureKind.CONTROLLER_LOST})
# What these kinds show is bound to the node on which it showed.
OF_A_NODE: frozenset[FailureKind] = frozenset(
    {FailureKind.DEVICE_LOST, FailureKind.DEVICE_DEGRADED, FailureKind.NODE_LOST}
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
