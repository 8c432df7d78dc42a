"""How a command ends: exit codes, as SkyPilot has them where it has one, and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from orchestrator.core.errors import (
    ClusterError,
    ConfigError,
    HeldError,
    NotFoundError,
    OrchestratorError,
    PlanError,
    StoreError,
)

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


def way_out(error: OrchestratorError) -> str:
    """Return what to type about the run of an error, to follow its message; often nothing."""
    run = error.run
    if not run:
        return ""
    again = f"run {run} goes on: orchestrator resume {run}"
    typed: Mapping[type[OrchestratorError], str] = {
        HeldError: f"; `orchestrator cancel {run}` ends it, "
        f"`orchestrator resume --take-over {run}` takes it over",
        ConfigError: f": orchestrator cancel {run}",
        ClusterError: f"; when it is up, {again}",
        StoreError: f"; when it is mended, {again}",
    }
    return next((words for kind, words in typed.items() if isinstance(error, kind)), "")
