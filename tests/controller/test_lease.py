"""Whether the controller of a run is there."""

from __future__ import annotations

import pytest

from orchestrator.controller.lease import LeaseState, lease_state
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.states import Event, RunFailed, RunStarted
from orchestrator.messages import Lease
from tests.build import header, plan, stage

LEASE = Lease(run="run", epoch=1, at=100.0, holder="me")


def there(
    lease: Lease | None, now: float, *events: Event, lives: bool | None
) -> LeaseState | None:
    run = fold(header(plan(stage("s"))), ((0.0, event) for event in events))
    return lease_state(run, lease, now, lambda _holder: lives)


@pytest.mark.parametrize(
    ("lives", "now", "expected"),
    [
        (None, 114.0, LeaseState.ALIVE),
        (None, 116.0, LeaseState.GONE),
        (None, 40.0, LeaseState.GONE),
        (True, 1000.0, LeaseState.ALIVE),
        (False, 101.0, LeaseState.GONE),
    ],
)
def test_a_process_is_believed_over_its_lease_where_it_can_be_seen(
    lives: bool | None,  # noqa: FBT001 - a value of the table
    now: float,
    expected: LeaseState,
) -> None:
    assert there(LEASE, now, RunStarted(1), lives=lives) is expected


def test_a_run_without_a_lease_had_a_controller_only_if_it_began() -> None:
    assert there(None, 0.0, RunStarted(1), lives=None) is LeaseState.GONE
    assert there(None, 0.0, lives=None) is None


def test_a_run_that_nobody_begins_for_a_minute_is_lost() -> None:
    assert there(None, 59.0, lives=None) is None
    assert there(None, 61.0, lives=None) is LeaseState.GONE
    assert there(LEASE, 61.0, lives=True) is LeaseState.ALIVE


def test_a_run_that_has_ended_needs_no_controller() -> None:
    assert there(LEASE, 101.0, RunStarted(1), RunFailed("broken"), lives=True) is None
