"""Exit codes, as SkyPilot has them where it has one."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError, NotFoundError, OrchestratorError, PlanError

if TYPE_CHECKING:
    from orchestrator.core.runs.states import RunState  # help is printed without it


class Exit(IntEnum):
    """What a command tells its caller."""

    SUCCEEDED = 0
    ERROR = 1
    USAGE = 2
    FAILED = 100
    NOT_FINISHED = 101
    NOT_FOUND = 102
    CANCELLED = 103


_BY_STATE = {
    "succeeded": Exit.SUCCEEDED,
    "failed": Exit.FAILED,
    "cancelled": Exit.CANCELLED,
}


def of_state(state: RunState) -> Exit:
    """Return the exit code that tells the state of a run."""
    return _BY_STATE.get(state, Exit.NOT_FINISHED)


def of_error(error: OrchestratorError) -> Exit:
    """Return the exit code that tells an error."""
    if isinstance(error, ConfigError | PlanError):
        return Exit.USAGE
    return Exit.NOT_FOUND if isinstance(error, NotFoundError) else Exit.ERROR
