"""What the stages of a run wrote, wherever it is driven: the database has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator import wiring
from orchestrator.controller.lease import LeaseState
from orchestrator.controller.output_recorder import SECONDS_BETWEEN_WRITES
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState
from orchestrator.output_reader import OutputReader
from orchestrator.ports import LogChunk
from orchestrator.service import runs

SECONDS_BETWEEN_LOOKS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which lines of a run are wanted: of a `stage`, of an `attempt` of it, of a `rank`.

    `tail` is how many of the last ones, `since` up to how many seconds ago.
    """

    stage: str | None = None
    attempt: int | None = None
    rank: int | None = None
    tail: int | None = None
    since: float | None = None

    def lines(self, chunk: LogChunk, now: float) -> list[str]:
        """Return the lines of `chunk` that are wanted, each with where it is from.

        `now` is the time by the database's clock.
        """
        if self.attempt not in {None, chunk.attempt}:
            return []
        if self.since is not None and chunk.at < now - self.since:
            return []
        begin = "" if self.rank is None else f"[{self.rank}] "
        place = f"({chunk.stage}.{chunk.attempt})"
        lines = chunk.text.removesuffix("\n").split("\n")
        return [f"{place} {line}" for line in lines if line.startswith(begin)]


ALL = Wanted()


@dataclass(slots=True)
class Logs:
    """The logs of a run, or what is `wanted` of them."""

    run: Run
    wanted: Wanted = ALL

    @property
    def began(self) -> bool:
        """Whether anything of the run has run."""
        return any(stage.attempts for stage in self.run.stages.values())

    def lines(self, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines so far; with `follow` go on until the run ends, or nobody drives it."""
        store = wiring.database(wiring.home())
        written = wiring.output(store, self.run.header, wiring.home())
        now, last = store.now(), 0
        if self.wanted.tail is not None:
            last, lines = self._tail(written, self.wanted.tail, now)
            yield from lines
        while True:
            self.run = runs.caught_up(store, self.run)
            gone = runs.lease_state(store, self.run) is LeaseState.GONE
            over = not follow or self.run.done or gone
            if follow and self.run.state is RunState.CANCELLED:
                wiring.clock().sleep(SECONDS_BETWEEN_WRITES)  # the last of what it was ended in
            for chunk in written.chunks(last, self.wanted.stage):
                last = chunk.id
                yield from self.wanted.lines(chunk, now)
            if over:
                return
            wiring.clock().sleep(SECONDS_BETWEEN_LOOKS)

    def _tail(self, written: OutputReader, most: int, now: float) -> tuple[int, list[str]]:
        """Return the id of the last chunk, and the last lines of all that are wanted."""
        last, lines = 0, list[str]()
        for chunk in written.newest(self.wanted.stage):
            last = max(last, chunk.id)
            lines += reversed(self.wanted.lines(chunk, now))
            if len(lines) >= most:
                break
        return last, lines[:most][::-1]


def logs(run: str, wanted: Wanted = ALL) -> Logs:
    """Return the logs of a run, named by its id or the beginning of that.

    Raises:
        NotFoundError: There is no such run, or no such stage.
    """
    known = runs.find(run)
    if wanted.stage:
        runs.stage(known, wanted.stage)
    return Logs(known, wanted)
