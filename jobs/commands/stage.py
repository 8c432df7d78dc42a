"""The job of a stage that is a command: it runs, is watched, and its checkpoints are adopted."""

from __future__ import annotations

import shutil
from collections.abc import Container, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from jobs.commands.checkpoint_folder import CheckpointFolder
from jobs.commands.checkpoint_layout import Layout
from jobs.commands.event_files import EventFiles
from jobs.commands.expansion import Expansion
from jobs.commands.json_lines import JsonLines
from jobs.commands.metrics import MetricFiles, MetricPatterns
from jobs.commands.processes import Ending, Line, Processes
from orchestrator.job import JobContext, KnownFailureError, Metrics, ranks_of_worker

WORK = ".work"  # below the output until the end: what an attempt leaves is swept with it
_POLL_SECONDS = 0.2
_RANK = "[rank"
_SHOWN = 3  # processes that a line names
# Before lines of what is being ended: indented as of a stack, and of a level that tells no error.
_LATE = " [INFO, as it ends] "


class CommandError(Exception):
    """A process of the command has failed. Why, its last lines tell."""


def run(  # noqa: PLR0913 - what a stage that is a command may say
    ctx: JobContext,
    *,
    command: str | list[str],
    processes: int | None = None,
    workdir: str = "",
    resume: list[str] | None = None,
    checkpoints: dict[str, str | float | bool] | None = None,
    metrics: list[str] | dict[str, str] | None = None,
    tensorboard: str = "",
    mlflow: bool = False,
    result: list[str] | None = None,
    exit_codes: dict[str, str] | None = None,
    grace: float = 30.0,
) -> Metrics:
    """Run a command in every worker, as torchrun would, and return the last of its metrics.

    Args:
        ctx: The context of the worker.
        command: Its words, or a line for `bash`. `{output}`, `{inputs.NAME}`, `{checkpoints}`,
            `{checkpoint}` (the one to go on from; empty where there is none), `{pool.name}`,
            `{pool.device}`, `{pool.backend}`, `{run}`, `{stage}`, `{attempt}` and `{seed}` stand
            for what they say.
        processes: How many a worker starts, all of which see its chips; one where it is not said.
        workdir: Folder of the shipped code, or of the host, that is copied and becomes the
            working directory. The first folder of the shipped code where it is empty.
        resume: Words to add where there is a checkpoint to go on from, in the place of `{resume}`
            or at the end.
        checkpoints: What in `{checkpoints}` is a checkpoint: see `Layout`.
        metrics: Regular expressions of lines with metrics: a group `step`, and one a metric.
            Lines that are JSON objects with a `step` count without one. Or the `file` that has
            such lines, below `{output}` or `{checkpoints}` or in the working directory, and what
            it calls the `step`.
        tensorboard: A folder, below `{output}` or in the working directory, whose event files have
            metrics, too.
        mlflow: Whether MLflow's own client in the first worker is to write to the attempt's run.
        result: Patterns of files that must be in `{output}` when it has succeeded.
        exit_codes: What it means that a process ends with a code: a kind of failure.
        grace: Seconds that the processes have to end when they are asked to.

    Raises:
        CommandNotFoundError: There is no such program.
        CommandError: It has failed.
        KnownFailureError: It has failed with one of `exit_codes`, or can't go on from what another
            number of processes had written.
        ValueError: It names what there is not, or has not left what it shall.
    """
    work = ctx.output / WORK
    layout = Layout(**checkpoints) if checkpoints else None  # type: ignore[arg-type]
    expansion = Expansion.of(ctx, work)
    each = processes or 1
    ranks = ranks_of_worker(ctx.hardware.devices, processes)
    folder = CheckpointFolder(expansion.checkpoints, layout, ctx, ranks)
    of_file = metrics if isinstance(metrics, dict) else {}
    patterns = metrics if isinstance(metrics, list) else ()
    read = MetricPatterns(patterns, ctx, of_lines=not of_file)
    codes = {int(code): kind for code, kind in (exit_codes or {}).items()}
    try:
        expansion = expansion.resumed_from(folder.restore())
        workplace = expansion.workdir(workdir)
        files: list[MetricFiles] = []
        if tensorboard:
            files.append(EventFiles(expansion.path(tensorboard, workplace)))
        if of_file:
            path = expansion.path(of_file["file"], workplace)
            files.append(JsonLines(path, of_file.get("step", "step")))
        tracked = ctx.tracker_variables() if mlflow and not ctx.rank else {}
        argv = expansion.argv(command, resume or ())
        ctx.meet()
        started = Processes(argv, expansion.environments(each, tracked), workplace)
        _WatchedCommand(ctx, started, folder, read, files, each).succeed(codes, grace)
        if ctx.rank == 0:  # its output is the artifact
            _require(ctx.output, result or ())
    finally:
        folder.close()
        shutil.rmtree(work, ignore_errors=True)
    return read.last


def _error(failure: Ending, codes: Mapping[int, str]) -> Exception:
    kind = codes.get(failure.code)
    return KnownFailureError(kind, failure.line) if kind else CommandError(failure.line)


@dataclass(frozen=True, slots=True)
class _WatchedCommand:
    """A command that runs, and what is read of it: lines, and `files` that have metrics.

    It has so many processes in `each` worker.
    """

    ctx: JobContext
    processes: Processes
    folder: CheckpointFolder
    read: MetricPatterns
    files: Sequence[MetricFiles]
    each: int

    def succeed(self, codes: Mapping[int, str], grace: float) -> None:
        """See the command to its end, and adopt what it has saved last, however it ends.

        Raises:
            CommandError: It has failed.
            KnownFailureError: It has failed with one of `codes`.
        """
        succeeded = False
        try:
            failure = self._until_the_end(codes)
            succeeded = failure is None
            if succeeded:
                self._tell_leftovers()
        finally:
            try:
                with nullcontext() if succeeded else self.ctx.saving_last():
                    self.processes.end(grace, self._hand_on_late)
            finally:
                if not succeeded:
                    self.folder.adopt_rest(orderly=self.processes.succeeded())
        if failure is not None:
            self.folder.explain(failed=True)
            raise _error(failure, codes)
        self.folder.adopt_last()
        self.folder.explain(failed=False)

    def _until_the_end(self, codes: Container[int]) -> Ending | None:
        """Hand on what the processes say and save, until all have ended or one has failed.

        Returns how one has failed: one that ended with one of `codes` before others.
        """
        while self.folder.written_while(lambda: self._lives(codes)):
            lines = self.processes.lines(_POLL_SECONDS)
            self._stay_if_succeeded()
            self._hand_on(lines)
            self.folder.adopt()
            self.ctx.end_if_asked()
        self._stay_if_succeeded()
        failed = self.processes.failed(codes)
        self._hand_on(self.processes.rest(), last=True)
        if failed is None:
            self.read.tell_unmatched(last=True)
        return None if failed is None else self.processes.ending(failed)

    def _stay_if_succeeded(self) -> None:
        """Throw nothing away that is done because the pool is being emptied."""
        if self.processes.succeeded():
            self.ctx.stay()

    def _lives(self, codes: Container[int]) -> bool:
        """Whether the command runs, and nothing of it has failed."""
        return self.processes.running() and self.processes.failed(codes) is None

    def _tell_leftovers(self) -> None:
        """Say that processes are ended which the command has left behind: nobody watches them."""
        names = self.processes.leftovers()
        if names:
            more = ", ..." * (len(names) > _SHOWN)
            what = f"the command has ended with 0 and left {', '.join(names[:_SHOWN])}{more}"
            hint = "run it in the foreground, or `wait` for it"
            self.ctx.log(f"{what}: what is left is ended now; {hint}")

    def _hand_on_late(self, lines: Sequence[Line]) -> None:
        """Hand on what processes say that are being ended, as no sign of why."""
        self._hand_on(lines, _LATE)

    def _hand_on(self, lines: Sequence[Line], begin: str = "", *, last: bool = False) -> None:
        for line in lines:
            for part in line.parts():
                rank = "" if part.startswith(_RANK) else self._rank(line)
                self.ctx.log(f"{begin}{rank}{part}")
            self.read.read(line)
        self.read.tell_unmatched()
        for file in self.files if not self.ctx.rank else ():
            self._hand_on_file(file, last=last)

    def _rank(self, line: Line) -> str:
        """Return which of several processes has written a line, as torch says it of a rank."""
        if self.each == 1:
            return ""
        return f"{_RANK}{self.ctx.rank * self.each + line.process}]: "

    def _hand_on_file(self, file: MetricFiles, *, last: bool) -> None:
        for step, values in file.read(last=last):
            self.read.hand_on(step, values)
        for problem in file.problems:
            self.ctx.log(problem)
        file.problems.clear()
        if last and file.lacking:
            self.ctx.log(file.lacking)


def _require(output: Path, patterns: Sequence[str]) -> None:
    lacking = [pattern for pattern in patterns if not _has_file(output, pattern)]
    if lacking:
        message = f"the command has ended with 0 and left no {lacking[0]!r} in {{output}}"
        raise ValueError(f"{message}; write it there, or leave it out of `result`")


def _has_file(output: Path, pattern: str) -> bool:
    """Whether a file fits, beside those that are swept with the attempt."""
    paths = (path.relative_to(output) for path in output.glob(pattern))
    return any(path.parts[:1] != (WORK,) for path in paths)


run.meets_by_itself = True  # type: ignore[attr-defined]
