"""Pauses of replicas that failed, and the requests that try them."""

from __future__ import annotations

from orchestrator.serving.gateway.ejection import Ejections


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_quiet_minute() -> None:
    ejections, now = Ejections(), 0.0
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        ejections.eject("a", now)
        assert not ejections.admits("a", now + pause - 0.01)
        now += pause + 0.01
        assert ejections.admits("a", now)
    now += 61
    ejections.eject("a", now)
    assert ejections.admits("a", now + 0.21)


def test_the_longest_pause_is_a_setting() -> None:
    ejections, now = Ejections(1.0), 0.0
    for pause in (0.2, 0.4, 0.8, 1.0, 1.0):
        ejections.eject("a", now)
        assert not ejections.admits("a", now + pause - 0.01)
        now += pause + 0.01
        assert ejections.admits("a", now)


def test_a_trial_that_says_nothing_makes_room_for_another_after_a_while() -> None:
    ejections = Ejections()
    ejections.eject("a", 0.0)
    assert ejections.trial("a", 1.0) is not None
    assert not ejections.admits("a", 5.9)
    assert ejections.admits("a", 6.1)


def test_a_replica_that_nobody_asks_is_still_to_be_tried_an_hour_later() -> None:
    ejections = Ejections()
    ejections.eject("a", 0.0)
    ejections.eject("b", 3600.0)
    trial = ejections.trial("a", 3600.0)
    assert trial is not None
    ejections.readmit("a", trial)
    assert len(ejections) == 1
