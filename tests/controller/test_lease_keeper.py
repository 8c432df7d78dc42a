"""The lease of a run is renewed whatever its loop is busy with, but not for one that is dead."""

from __future__ import annotations

import threading

import pytest

from orchestrator.controller.lease_keeper import (
    SECONDS_OF_A_DEAD_LOOP,
    SECONDS_OF_A_LEASE,
    LeaseKeeper,
)
from orchestrator.core.errors import StaleControllerError, StoreError
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunStarted
from orchestrator.error_boundary import BestEffort
from orchestrator.messages import Lease
from tests.build import header, plan, stage
from tests.fakes import FakeClock, MemoryStore


class Post:
    """A run of epoch 3, and who keeps its lease."""

    def __init__(self) -> None:
        self.store, self.clock, self.best_effort = MemoryStore(), FakeClock(100.0), BestEffort()
        self.store.now = self.clock.monotonic
        self.keeper = LeaseKeeper(self.store, self.clock, "me", self.best_effort)
        self.run: Run = apply(begin(header(plan(stage("s")))), RunStarted(3), 100.0)

    def seen(self) -> float:
        lease = self.store.lease("run")
        assert lease
        return lease.at


@pytest.fixture
def post() -> Post:
    return Post()


def test_it_is_renewed_every_few_seconds(post: Post) -> None:
    post.keeper.turn(post.run)
    lease = post.store.lease("run")
    assert lease == Lease(run="run", epoch=3, at=100.0, holder="me")
    post.clock.sleep(1.0)
    post.keeper.turn(post.run)
    assert post.store.lease("run") == lease
    post.clock.sleep(SECONDS_OF_A_LEASE)
    post.keeper.turn(post.run)
    assert post.seen() == 106.0


def test_its_time_is_the_databases_whatever_the_clock_of_the_host_says(post: Post) -> None:
    post.clock.step(60.0)
    post.keeper.turn(post.run)
    assert post.seen() == 100.0


def test_it_is_renewed_beside_a_loop_that_is_held_up(post: Post) -> None:
    post.keeper.turn(post.run)
    post.clock.sleep(60.0)
    post.keeper.keep()
    assert post.seen() == 160.0


def test_the_first_one_is_there_before_the_loop_does_anything_else(post: Post) -> None:
    post.keeper.pause = 3600.0
    with post.keeper:
        post.keeper.turn(post.run)
        assert post.seen() == 100.0


def test_it_is_not_renewed_for_a_loop_that_is_dead(post: Post) -> None:
    post.keeper.turn(post.run)
    post.clock.sleep(SECONDS_OF_A_DEAD_LOOP + 1.0)
    post.keeper.keep()
    assert post.seen() == 100.0


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_time_of_day_that_is_set_does_not_keep_it_from_being_renewed(
    post: Post, seconds: float
) -> None:
    post.keeper.turn(post.run)
    post.clock.step(seconds)
    post.clock.sleep(SECONDS_OF_A_LEASE)
    post.keeper.turn(post.run)
    assert post.seen() == 105.0


def test_a_store_that_is_away_is_asked_again_soon_and_that_is_counted(post: Post) -> None:
    good = post.store.renew_lease

    def away(lease: Lease) -> None:
        raise StoreError("away")

    post.store.renew_lease = away  # type: ignore[method-assign]
    post.keeper.turn(post.run)
    post.store.renew_lease = good  # type: ignore[method-assign]
    (untold,) = post.best_effort.untold
    assert str(untold) == "1 lease was not renewed in time: away"
    post.clock.sleep(1.0)
    post.keeper.turn(post.run)
    assert post.seen() == 101.0


def test_another_controller_is_noticed_by_its_lease(post: Post) -> None:
    post.keeper.turn(post.run)
    post.store.renew_lease(Lease(run="run", epoch=4, at=101.0, holder="other"))
    post.clock.sleep(1.0)
    with pytest.raises(StaleControllerError, match="has a controller of epoch 4"):
        post.keeper.turn(post.run)


def test_its_thread_renews_it_and_tells_the_loop_of_another_controller(post: Post) -> None:
    renewed, refused = threading.Event(), threading.Event()
    good = post.store.renew_lease

    def renew(lease: Lease) -> None:
        if lease.at > 200.0:
            refused.set()
            raise StaleControllerError("run 'run' has another controller")
        good(lease)
        renewed.set()

    post.store.renew_lease = renew  # type: ignore[method-assign]
    post.keeper.pause = 0.001
    with post.keeper:
        post.keeper.turn(post.run)
        assert renewed.wait(20.0)
        post.clock.sleep(150.0)
        assert refused.wait(20.0)
    with pytest.raises(StaleControllerError):
        post.keeper.turn(post.run)
