"""What attempts are busy with is noted while it lasts, and no more often than it changes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.controller.occupation import Occupation
from orchestrator.core.errors import StoreError
from orchestrator.core.runs.run import Attempt
from orchestrator.core.runs.states import AttemptState
from orchestrator.messages import Alive, Busy
from tests.fakes import FakeClock
from tests.memory import MemoryStore

STATE = AttemptState.RUNNING
FIRST, SECOND = (
    Attempt(stage=s, number=1, pool="a", state=STATE, started=0.0) for s in ("s", "t")
)


class Writes(MemoryStore):
    """Counts the notes; the first of them fails."""

    written = 0

    def note_busy(self, run: str, busy: Sequence[Busy]) -> None:
        self.written += 1
        if self.written == 1:
            raise StoreError("locked")
        super().note_busy(run, busy)


def occupied() -> tuple[FakeClock, MemoryStore, Occupation]:
    clock, store = FakeClock(1000.0), MemoryStore()
    return clock, store, Occupation(store, "run", clock)


def test_an_attempt_is_busy_since_its_worker_began_by_the_clock_of_the_controller() -> None:
    _, store, occupation = occupied()
    occupation.hear(FIRST, Alive(0, 3, 77.0, "saving", 12.0))
    occupation.note((FIRST, SECOND))
    assert store.busy("run") == (Busy("s", 1, "saving", 988.0),)


def test_it_is_noted_anew_only_when_it_changes_a_second_apart() -> None:
    clock, store, occupation = occupied()
    for seconds in (1.0, 2.2, 2.9):
        occupation.hear(FIRST, Alive(0, 3, None, "saving", seconds))
        occupation.note((FIRST,))
        clock.sleep(1.0)
    assert store.busy("run") == (Busy("s", 1, "saving", 999.0),)
    occupation.hear(FIRST, Alive(0, 3, None, "compiling", 0.5))
    occupation.note((FIRST,))
    occupation.hear(FIRST, Alive(0, 3))
    occupation.note((FIRST,))
    assert store.busy("run") == (Busy("s", 1, "compiling", 1002.5),)
    clock.sleep(1.0)
    occupation.note((FIRST,))
    assert store.busy("run") == ()


def test_of_several_workers_the_first_that_is_busy_is_noted_and_an_attempt_that_ended_is_not() -> (
    None
):
    _, store, occupation = occupied()
    occupation.hear(FIRST, Alive(1, 3, None, "validating"))
    occupation.hear(FIRST, Alive(0, 3))
    occupation.note((FIRST,))
    assert [one.what for one in store.busy("run")] == ["validating"]
    occupation.note(())
    assert store.busy("run") == ()


def test_a_note_that_fails_is_made_again() -> None:
    clock, store = FakeClock(1000.0), Writes()
    occupation = Occupation(store, "run", clock)
    occupation.hear(FIRST, Alive(0, 3, None, "saving"))
    for _ in range(4):
        occupation.note((FIRST,))
        clock.sleep(0.5)
    assert (store.written, [one.what for one in store.busy("run")]) == (2, ["saving"])
