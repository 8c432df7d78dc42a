"""The reaper ends when nobody needs it, and stays where `up` keeps it, until it is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.service.daemons import reaper
from tests.conftest import Command

LOCALLY = ("cluster=local", "tracking=none", "pipeline=noop")
STOPPED_AT = 3 * reaper.IDLE_LOOKS


class _Clock:
    """One that does not wait; what keeps the reaper is taken away after some looks."""

    def __init__(self, home: Path) -> None:
        self.home, self.looks = home, 0

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        assert seconds == reaper.SECONDS_BETWEEN_LOOKS
        self.looks += 1
        if self.looks == STOPPED_AT:
            assert not wiring.stop_reaper(self.home), "no process was started"


@pytest.mark.parametrize(
    ("verb", "looks"),
    [("launch", reaper.IDLE_LOOKS), ("up", STOPPED_AT + reaper.IDLE_LOOKS - 1)],
)
def test_it_ends_when_it_is_idle_and_is_kept_by_up(
    within: Command, monkeypatch: pytest.MonkeyPatch, verb: str, looks: int
) -> None:
    done = within(verb, *LOCALLY)
    assert done.returncode == 0, done.stderr
    clock = _Clock(wiring.home())
    monkeypatch.setattr(wiring, "clock", lambda: clock)
    reaper.run(lambda _: None)
    assert clock.looks == looks
