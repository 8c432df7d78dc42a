"""Why an attempt ended: a closed set of kinds, where each lies, and what it leads to by default.

A failure has two axes beside its kind: how sure it is (`Failure.certain`), and whether its kind
may pass by itself (`TRANSIENT`). What nobody knows is `UNKNOWN`, never the user's fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class FailureKind(StrEnum):
    """The reasons for which an attempt ends without a result."""

    UNKNOWN = "unknown"
    INTERCONNECT = "interconnect"
    DEVICE_LOST = "device_lost"
    DEVICE_DEGRADED = "device_degraded"
    OUT_OF_MEMORY = "out_of_memory"
    HOST_MEMORY = "host_memory"
    UNSUPPORTED_OPERATOR = "unsupported_operator"
    NUMERICAL_DIVERGENCE = "numerical_divergence"
    SOFTWARE = "software"
    SET_UP = "set_up"
    STORAGE = "storage"
    WORKER_LOST = "worker_lost"
    NODE_LOST = "node_lost"
    PLACEMENT = "placement"
    UNQUALIFIED = "unqualified"
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


class Where(StrEnum):
    """What a failure lies in."""

    CHIP = "chip"
    LINK = "link"
    HOST = "host"
    STORAGE = "storage"
    CODE = "code"
    SET_UP = "set_up"
    DATA = "data"
    SERVICE = "service"
    NOWHERE = ""  # nobody knows, or nothing is broken: a wish, a limit


class Action(StrEnum):
    """What a failed attempt leads to.

    RETRY here after a back-off; OTHER_NODES of the same pool; FALL_BACK to the next pool of the
    role; LOWER_BATCH here, more micro-batches making up the same batch; ROLL_BACK here, to an
    earlier checkpoint and with a lower learning rate; ESCALATE: here, then on other nodes, then on
    the next pool, then PAUSE, so that somebody looks before it goes on; STOP.
    """

    RETRY = "retry"
    OTHER_NODES = "other_nodes"
    FALL_BACK = "fall_back"
    LOWER_BATCH = "lower_batch"
    ROLL_BACK = "roll_back"
    ESCALATE = "escalate"
    PAUSE = "pause"
    STOP = "stop"


DEFAULT_ACTIONS: Mapping[FailureKind, Action] = MappingProxyType(
    {
        FailureKind.UNKNOWN: Action.ESCALATE,
        FailureKind.INTERCONNECT: Action.FALL_BACK,
        FailureKind.DEVICE_LOST: Action.OTHER_NODES,
        FailureKind.DEVICE_DEGRADED: Action.OTHER_NODES,
        FailureKind.OUT_OF_MEMORY: Action.LOWER_BATCH,
        FailureKind.HOST_MEMORY: Action.OTHER_NODES,
        FailureKind.UNSUPPORTED_OPERATOR: Action.FALL_BACK,
        FailureKind.NUMERICAL_DIVERGENCE: Action.ROLL_BACK,
        FailureKind.SOFTWARE: Action.FALL_BACK,
        FailureKind.SET_UP: Action.STOP,
        FailureKind.STORAGE: Action.RETRY,
        FailureKind.WORKER_LOST: Action.RETRY,
        FailureKind.NODE_LOST: Action.OTHER_NODES,
        FailureKind.PLACEMENT: Action.FALL_BACK,
        FailureKind.UNQUALIFIED: Action.OTHER_NODES,
        FailureKind.HANG: Action.FALL_BACK,
        FailureKind.USER_CODE: Action.STOP,
        FailureKind.DATA: Action.STOP,
        FailureKind.PARITY: Action.STOP,
        FailureKind.SERVING: Action.FALL_BACK,
        FailureKind.ROLLED_BACK: Action.STOP,
        FailureKind.DRAINED: Action.FALL_BACK,
        FailureKind.CONTROLLER_LOST: Action.RETRY,
        FailureKind.BUDGET: Action.PAUSE,
        FailureKind.TIME: Action.PAUSE,
        FailureKind.CANCELLED: Action.STOP,
    }
)


WHERE: Mapping[FailureKind, Where] = MappingProxyType(
    {
        FailureKind.UNKNOWN: Where.NOWHERE,
        FailureKind.INTERCONNECT: Where.LINK,
        FailureKind.DEVICE_LOST: Where.CHIP,
        FailureKind.DEVICE_DEGRADED: Where.CHIP,
        FailureKind.OUT_OF_MEMORY: Where.CHIP,
        FailureKind.HOST_MEMORY: Where.HOST,
        FailureKind.UNSUPPORTED_OPERATOR: Where.CHIP,
        FailureKind.NUMERICAL_DIVERGENCE: Where.DATA,
        FailureKind.SOFTWARE: Where.CHIP,
        FailureKind.SET_UP: Where.SET_UP,
        FailureKind.STORAGE: Where.STORAGE,
        FailureKind.WORKER_LOST: Where.HOST,
        FailureKind.NODE_LOST: Where.HOST,
        FailureKind.PLACEMENT: Where.HOST,
        FailureKind.UNQUALIFIED: Where.HOST,
        FailureKind.HANG: Where.LINK,
        FailureKind.USER_CODE: Where.CODE,
        FailureKind.DATA: Where.DATA,
        FailureKind.PARITY: Where.DATA,
        FailureKind.SERVING: Where.SERVICE,
        FailureKind.ROLLED_BACK: Where.SERVICE,
        FailureKind.DRAINED: Where.NOWHERE,
        FailureKind.CONTROLLER_LOST: Where.SERVICE,
        FailureKind.BUDGET: Where.NOWHERE,
        FailureKind.TIME: Where.NOWHERE,
        FailureKind.CANCELLED: Where.NOWHERE,
    }
)
# What may pass by itself: better tried here again than given up, where no pool can take over.
TRANSIENT: frozenset[FailureKind] = frozenset(
    {
        FailureKind.UNKNOWN,
        FailureKind.INTERCONNECT,
        FailureKind.SOFTWARE,
        FailureKind.STORAGE,
        FailureKind.WORKER_LOST,
        FailureKind.NODE_LOST,
        FailureKind.PLACEMENT,
        FailureKind.HANG,
        FailureKind.SERVING,
        FailureKind.DRAINED,
        FailureKind.CONTROLLER_LOST,
    }
)
# What a job can know of its own failure; of the others the cluster or the controller knows.
OF_A_JOB: frozenset[FailureKind] = frozenset(
    {
        FailureKind.UNKNOWN,
        FailureKind.INTERCONNECT,
        FailureKind.DEVICE_LOST,
        FailureKind.DEVICE_DEGRADED,
        FailureKind.OUT_OF_MEMORY,
        FailureKind.HOST_MEMORY,
        FailureKind.UNSUPPORTED_OPERATOR,
        FailureKind.NUMERICAL_DIVERGENCE,
        FailureKind.SOFTWARE,
        FailureKind.SET_UP,
        FailureKind.STORAGE,
        FailureKind.WORKER_LOST,
        FailureKind.NODE_LOST,
        FailureKind.HANG,
        FailureKind.USER_CODE,
        FailureKind.DATA,
    }
)
# What is these by a guess alone, such as by the signal that ended a process, nobody knows.
GUESSED: frozenset[FailureKind] = frozenset(
    {FailureKind.SOFTWARE, FailureKind.WORKER_LOST, FailureKind.SET_UP, FailureKind.DATA}
)
# The sign of a node that runs other versions than its controller or the others of its gang.
OTHER_VERSIONS = "other_versions"
# The sign of storage without room: it may be the disk of one node.
DISK_FULL = "disk_full"
# The signature of a job whose micro-batches can't be made smaller.
DOES_NOT_FIT = "does_not_fit"
# What these kinds end is not the attempt's own fault: it doesn't count against the limit.
UNCOUNTED: frozenset[FailureKind] = frozenset({FailureKind.DRAINED, FailureKind.CONTROLLER_LOST})
# A chip that broke stays so until somebody has mended it.
OF_A_BROKEN_CHIP: frozenset[FailureKind] = frozenset(
    {FailureKind.DEVICE_LOST, FailureKind.DEVICE_DEGRADED}
)
# What these kinds show is bound to the node on which it showed.
OF_A_NODE: frozenset[FailureKind] = frozenset(
    {
        FailureKind.DEVICE_LOST,
        FailureKind.DEVICE_DEGRADED,
        FailureKind.NODE_LOST,
        FailureKind.HOST_MEMORY,
        FailureKind.UNQUALIFIED,
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
        certain: Whether a signature, the cluster or the attempt itself says so; else it is what
            the kind of exception makes likely.
        sign: What says so, where something does: the name of a signature, or `plain_exception`,
            `type_of_exception`, `other_versions`, `disk_full`, `errno_X` or `signal_X`, X being
            the name of the number.
        adjusts: Whether the job had looked at what it shall do otherwise than planned.
    """

    kind: FailureKind
    evidence: str
    detail: str = ""
    pool: str | None = None
    node: str | None = None
    rank: int | None = None
    step: int | None = None
    certain: bool = True
    sign: str = ""
    adjusts: bool = False


def of_versions(evidence: str, node: str | None = None, pool: str | None = None) -> Failure:
    """Return the failure of a node that runs other versions, as `evidence` names them."""
    return Failure(
        kind=FailureKind.SET_UP, evidence=evidence, pool=pool, node=node, sign=OTHER_VERSIONS
    )


def default_action(failure: Failure) -> Action:
    """Return what `failure` leads to where the config says nothing of its kind."""
    guess = failure.kind in GUESSED and not failure.certain
    return Action.ESCALATE if guess else DEFAULT_ACTIONS[failure.kind]
