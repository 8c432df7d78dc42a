"""A worker that shows that it lives is missed when it does not any more."""

from __future__ import annotations

from orchestrator.adapters.raycluster.silence import SUSPECT_SECONDS, Silence
from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.messages import Alive, LogLine

RANKS = {0, 1, 2}


def silent(silence: Silence, now: float, *, hurry: bool = False) -> list[int]:
    return [rank for rank, _ in silence.of(RANKS, now, hurry=hurry)]


def test_who_was_never_alive_is_not_missed() -> None:
    silence = Silence(30.0)
    silence.heard(0, LogLine(0, "hello"), 0.0)
    assert silent(silence, 1000.0) == []


def test_a_worker_is_missed_after_a_hang_and_a_margin_and_sooner_when_others_hang() -> None:
    silence = Silence(30.0)
    for rank in (0, 1):
        silence.heard(rank, Alive(rank, 4), 0.0)
    silence.heard(1, LogLine(1, "more"), 20.0)

    assert silent(silence, 30.0 + PATIENT.margin) == []
    assert list(silence.of(RANKS, 36.0, hurry=False)) == [(0, 36.0)]
    assert silent(silence, SUSPECT_SECONDS + 0.1, hurry=True) == [0]
    assert silent(silence, 24.0, hurry=True) == [0, 1]


def test_who_did_not_listen_for_long_misses_nobody_yet() -> None:
    silence = Silence(1.0)
    silence.listen(0.0)
    silence.heard(0, Alive(0, 4), 0.0)
    silence.listen(500.0)
    assert silent(silence, 500.0) == []
    silence.listen(502.5)
    assert silent(silence, 502.5) == [0]


def test_by_default_the_run_says_how_long_a_hang_is_and_how_much_longer_silence() -> None:
    silence = Silence("auto", AttemptSettings(hang=30.0, margin=20.0))
    silence.heard(0, Alive(0, 4), 0.0)
    assert silent(silence, 50.0) == []
    assert silent(silence, 50.1) == [0]


def test_without_a_limit_nobody_is_missed() -> None:
    silence = Silence(None)
    silence.heard(0, Alive(0, 4), 0.0)
    assert silent(silence, 1e6, hurry=True) == []
