"""A run while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.cli import plan, run_summary
from orchestrator.cli.interrupts import SignalInterrupts
from orchestrator.core.runs.run import Run, RunHeader, StageRun
from orchestrator.core.runs.states import StageState
from orchestrator.core.settings import Settings
from orchestrator.display import tables, terminal
from orchestrator.messages import Message, Placed, Points, Progress, Untold, Waiting
from orchestrator.ports import Clock
from orchestrator.service import driving, environment

SECONDS_BETWEEN_LINES = 5.0
REFRESHES_A_SECOND = 4
MOST_FIGURES = 8  # of a stage that succeeded, on one line
OUTPUT = "output.txt"  # what a terminal that is gone should have shown
COLUMNS = ("STAGE", "POOL", "STATUS", "PROGRESS", "LOSS", "TOKENS/S", "ETA", "TIME")


class _Latest:
    """What an attempt said last."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.progress: Progress | None = None
        self.first = 0
        self.values: dict[str, float] = {}
        self.waiting = ""
        self.printed = now

    def take(self, message: Message, now: float) -> None:
        if isinstance(message, Points):
            self.values.update(message.values)
        elif isinstance(message, Waiting):
            self.waiting = message.reason
        elif isinstance(message, Placed):
            self.waiting = ""
        elif isinstance(message, Progress):
            if self.progress is None:
                self.began, self.first = now, message.done
            self.progress = message

    def eta(self, now: float) -> float | None:
        """Return the seconds that are left at the pace so far."""
        if self.progress is None or self.progress.done <= self.first:
            return None
        pace = (now - self.began) / (self.progress.done - self.first)
        return pace * (self.progress.total - self.progress.done)


class LiveView:
    """Shows the run that it follows; a context manager."""

    def __init__(
        self, console: Console, clock: Clock | None = None, *, starting: str = ""
    ) -> None:
        """Show on `console`; before the run, that the services `starting` are being started."""
        self._console = console
        self._starting = starting
        self._clock = clock or environment.clock()
        self._current: Callable[[], Run] | None = None
        self._runs = 0
        self._latest: dict[tuple[str, int], _Latest] = {}
        self._printed: dict[str, str] = {}
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=REFRESHES_A_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start()
        elif self._starting:
            self._console.print(f"Starting {self._starting} ...")
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the last state on the screen."""
        if self._console.is_terminal:
            self._live.stop()
        self._leave()

    def _leave(self) -> None:
        """Print the last state of the run that was followed."""
        if self._current and self._console.is_terminal:
            self._console.print(self._table(self._current()))

    @classmethod
    def of(cls, settings: Settings) -> LiveView:
        """Return the view of a run of `settings`: it says what has to be started before."""
        return cls(tables.console(), starting=driving.starting(settings))

    def begins(self, header: RunHeader, *, again: bool = False) -> None:
        """Print which run begins or goes on; of a sweep also the plan of each after the first."""
        if self._runs:
            plan.show(header.plan, self._console.print)
        self._runs += 1
        self._console.print(f"\nRun [bold]{header.run}[/]{' goes on' if again else ''}")

    def ended(self, run: Run) -> None:
        """Print how a run ended, and what to type next."""
        run_summary.show(run, self._console.print)

    def interruptible(self) -> AbstractContextManager[driving.Interrupts]:
        """Let the first Ctrl-C or SIGTERM cancel the run."""
        return SignalInterrupts()

    def follow(self, current: Callable[[], Run]) -> None:
        """Show the run that `current` returns, as it then stands, from now on."""
        self._leave()
        self._current = current
        terminal.spare(environment.home_path() / "logs" / current().header.run / OUTPUT)
        self._latest, self._printed = {}, {}

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Take notice of what an attempt says."""
        now = self._clock.monotonic()
        latest = self._latest.setdefault((stage, attempt), _Latest(now))
        latest.take(message, now)
        if not self._console.is_terminal and now - latest.printed >= SECONDS_BETWEEN_LINES:
            self._tell(stage, latest, now)

    def _tell(self, stage: str, latest: _Latest, now: float) -> None:
        """Print a line about how far a stage is, where it says that."""
        names = ("", "loss ", "tokens/s ", "ETA ")
        figures = zip(names, self._figures(latest), strict=True)
        line = ", ".join(name + figure for name, figure in figures if figure != "-")
        if line or latest.waiting:
            latest.printed = now
            self._console.print(f"{stage}: {line or latest.waiting}", markup=False)

    def changed(self) -> None:
        """Print what is new about each stage, where there is no live table."""
        if self._console.is_terminal or self._current is None:
            return
        for stage in self._current().stages.values():
            line = _sentence(stage)
            if line and self._printed.get(stage.name) != line:
                self._printed[stage.name] = line
                self._console.print(f"{stage.name}: {line}", markup=False)

    def untold(self, untold: Sequence[Untold]) -> None:
        """Print what could not be told of the run."""
        for note in untold:
            self._console.print(f"note: {note}", style="yellow", markup=False)

    # --- drawing -------------------------------------------------------------------------------

    def _render(self) -> RenderableType:
        if self._current is None:
            return Spinner("dots", Text(f"Starting {self._starting or 'the run'}"))
        return Group(Text(""), self._table(self._current()))

    def _table(self, run: Run) -> Table:
        return tables.table(COLUMNS, (tuple(self._row(stage)) for stage in run.stages.values()))

    def _row(self, stage: StageRun) -> Iterator[str]:
        attempt = stage.attempts[-1] if stage.attempts else None
        latest = self._latest.get((stage.name, attempt.number)) if attempt else None
        yield from (stage.name, stage.pool, _status(stage))
        yield from self._figures(latest) if latest else ("-",) * 4
        ended = attempt and (attempt.ended or self._clock.now())
        yield tables.duration(ended - attempt.started if attempt and ended else None)

    def _figures(self, latest: _Latest) -> Iterator[str]:
        progress = latest.progress
        yield f"{progress.done}/{progress.total}" if progress else "-"
        yield _figure(latest.values, "loss", "{:.4f}")
        yield _figure(latest.values, "tokens_per_second", "{:,.0f}")
        yield tables.duration(latest.eta(self._clock.monotonic()))


def _figure(values: dict[str, float], ending: str, form: str) -> str:
    """Return the value whose name ends so, written in `form`."""
    figure = next((value for name, value in values.items() if name.endswith(ending)), None)
    return "-" if figure is None else form.format(figure)


def _status(stage: StageRun) -> str:
    if stage.reused_from:
        return "reused"
    if stage.state is StageState.RUNNING:
        return "waiting" if stage.attempts[-1].placed is None else "running"
    return stage.state


def _sentence(stage: StageRun) -> str:
    """Return one line about a stage; empty while there is nothing to say."""
    if stage.reused_from:
        return f"reused from {stage.reused_from}"
    if stage.state is StageState.PENDING:
        return stage.reason if stage.attempts else ""
    if stage.state is StageState.RUNNING:
        attempt = stage.attempts[-1]
        if attempt.placed is not None:
            return f"running on {stage.pool}"
        return f"waits: {attempt.waits}" if attempt.waits else ""
    if stage.state is StageState.SUCCEEDED:
        shown = [f"{name} {value:.4g}" for name, value in stage.metrics.items()][:MOST_FIGURES]
        if len(stage.metrics) > MOST_FIGURES:
            shown.append(f"and {len(stage.metrics) - MOST_FIGURES} more")
        figures = ", ".join(shown)
        return f"succeeded on {stage.pool}" + (f" ({figures})" if figures else "")
    return f"{stage.state}: {stage.reason}" if stage.reason else str(stage.state)
