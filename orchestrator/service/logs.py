"""What the stages of a run wrote, as its controller has it in files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import wiring
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import NotFoundError
from orchestrator.core.runs.run import Run
from orchestrator.service import driving, runs
from orchestrator.supervisor import holder

SECONDS_BETWEEN_LOOKS = 0.3


@dataclass(slots=True)
class Logs:
    """The logs of a run, or of one `stage` of it."""

    run: Run
    stage: str | None = None
    _read: dict[Path, int] = field(default_factory=dict)

    @property
    def began(self) -> bool:
        """Whether anything of the run has run."""
        return any(stage.attempts for stage in self.run.stages.values())

    @property
    def here(self) -> bool:
        """Whether this machine has the logs of the run, which may be none."""
        launched = self.run.header.tags.get(driving.HOST) == wiring.host()
        return self._folder.is_dir() or (self.began and launched and not self.elsewhere())

    def not_here(self) -> NotFoundError:
        """Return why there is nothing to read: the logs are on another machine."""
        name = self.run.header.run
        launched = f"on {self.run.header.tags.get(driving.HOST, 'another machine')}"
        where = self.elsewhere() or f"where it was driven, perhaps {launched}"
        folder = str(self._folder.parent)
        message = f"the logs of run {name!r} are not in {folder!r}: they are {where}"
        return NotFoundError(f"{message}; ask there, or set ORCHESTRATOR_HOME to its home")

    def elsewhere(self) -> str:
        """Return where the run is driven; empty where that is this machine, or it has ended."""
        lease = wiring.database(wiring.home()).lease(self.run.header.run)
        if lease is None or holder.lives(lease.holder) is not None:
            return ""
        return f"with its controller ({holder.in_words(lease.holder) or 'on another machine'})"

    def lines(self, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines so far; with `follow` go on until the run ends, or nobody drives it."""
        yield from self._new()
        store = wiring.database(wiring.home())
        self.run = runs.load(store, self.run.header)
        while follow and not self.run.done:
            if runs.lease_state(store, self.run) is LeaseState.GONE:
                return
            wiring.clock().sleep(SECONDS_BETWEEN_LOOKS)
            self.run = runs.load(store, self.run.header)
            yield from self._new()

    @property
    def _folder(self) -> Path:
        return wiring.home() / "logs" / self.run.header.run

    def _new(self) -> Iterator[str]:
        """Yield what was added to the files since the last look, whole lines only."""
        for path in wiring.log_files.existing(self._folder, self.stage):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                yield f"({path.stem}) {line}"


def logs(run: str, stage: str | None = None) -> Logs:
    """Return the logs of a run, named by its id or the beginning of that.

    Raises:
        NotFoundError: There is no such run, or no such stage.
    """
    known = runs.find(run)
    names = [planned.stage.name for planned in known.header.plan.stages]
    if stage and stage not in names:
        what = f"run {known.header.run!r} has no stage {stage!r}; stages: {', '.join(names)}"
        raise NotFoundError(what)
    return Logs(known, stage)
