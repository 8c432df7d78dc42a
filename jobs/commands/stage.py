"""The job of a stage that is a command: it runs, is watched, and its checkpoints are adopted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from jobs.commands.checkpoint_folder import CheckpointFolder, Layout
from jobs.commands.expansion import Expansion
from jobs.commands.metrics import MetricPatterns
from jobs.commands.processes import Line, Processes
from orchestrator.job import JobContext, Metrics

WORK = ".work"  # below the output until the end: what an attempt leaves is swept with it
_POLL_SECONDS = 0.2


class CommandError(Exception):
    """A process of the command has failed. Why, its last lines tell."""


def run(  # noqa: PLR0913 - what a stage that is a command may say
    ctx: JobContext,
    *,
    command: str | list[str],
    processes: int | None = None,
    workdir: str = "",
    resume: list[str] | None = None,
    checkpoints: dict[str, str | float] | None = None,
    metrics: list[str] | None = None,
    result: list[str] | None = None,
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
        resume: Words to add where there is a checkpoint to go on from.
        checkpoints: What in `{checkpoints}` is a checkpoint: see `Layout`.
        metrics: Regular expressions of lines with metrics: a group `step`, and one a metric.
            Lines that are JSON objects with a `step` count without one.
        result: Patterns of files that must be in `{output}` when it has succeeded.
        grace: Seconds that the processes have to end when they are asked to.

    Raises:
        CommandNotFoundError: There is no such program.
        CommandError: It has failed.
        ValueError: It is not written as it must be, or has not left what it shall.
    """
    work = ctx.output / WORK
    expansion = Expansion.of(ctx, work)
    folder = CheckpointFolder(expansion.checkpoints, Layout.of(checkpoints), ctx)
    read = MetricPatterns(metrics or (), ctx)
    try:
        expansion = expansion.at(folder.restore())
        argv = expansion.argv(command, resume or ())
        crew = Processes(argv, expansion.environments(processes or 1), expansion.workdir(workdir))
        try:
            _watch(ctx, crew, folder, read)
        finally:
            crew.end(grace)
        folder.adopt_last()
        if ctx.rank == 0:  # its output is the artifact
            _require(ctx.output, result or ())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return read.last


def _watch(
    ctx: JobContext, crew: Processes, folder: CheckpointFolder, read: MetricPatterns
) -> None:
    """Hand on what the processes say and save, until all have ended or one has failed."""
    while crew.running() and not crew.failed():
        _hand_on(ctx, crew.lines(_POLL_SECONDS), read)
        folder.adopt()
        if ctx.stopping:
            ctx.log("the command is asked to end")  # raises: the attempt is given up
    _hand_on(ctx, crew.rest(), read)
    failure = crew.failed()
    if failure:
        raise CommandError(failure)


def _hand_on(ctx: JobContext, lines: Sequence[Line], read: MetricPatterns) -> None:
    for line in lines:
        ctx.log(line.text)
        read.read(line)


def _require(output: Path, patterns: Sequence[str]) -> None:
    lacking = [pattern for pattern in patterns if not any(output.glob(pattern))]
    if lacking:
        message = f"the command has ended with 0 and left no {lacking[0]!r} in {{output}}"
        raise ValueError(f"{message}; write it there, or leave it out of `result`")


run.meets_by_itself = True  # type: ignore[attr-defined]
