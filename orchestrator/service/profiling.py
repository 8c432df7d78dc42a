"""What a stage does while it runs: the stacks of a worker, or where that spends its time."""

from __future__ import annotations

from orchestrator import wiring
from orchestrator.core.errors import ClusterError, NotFoundError
from orchestrator.core.runs.run import Attempt, StageRun
from orchestrator.service import runs

# How a recording is written, by the ending of its file.
FORMS = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}


def profile(
    run: str, stage: str, *, rank: int = 0, seconds: float = 0.0, form: str = "flamegraph"
) -> bytes:
    """Return what worker `rank` of a stage that runs does, with the processes that it started.

    Without `seconds` the stacks of all threads now, as text; else what they were in over so many
    seconds, in a `form` of `FORMS`. The worker is not asked, and stands still for milliseconds.

    Raises:
        NotFoundError: There is no such run, stage or rank.
        ClusterError: The stage does not run, or the worker can't be looked at.
    """
    known = runs.find(run)
    attempt = _running(runs.stage(known, stage))
    if rank >= len(attempt.nodes):
        what = f"stage {stage!r} has no worker {rank}"
        raise NotFoundError(f"{what}; its ranks: 0 to {len(attempt.nodes) - 1}")
    settings, key = wiring.configs.parse(known.header.config), f"{known.header.run}/{stage}"
    key = f"{key}/{attempt.number}"
    return wiring.stacks(settings, wiring.home(), key, rank, seconds=seconds, form=form)


def _running(stage: StageRun) -> Attempt:
    """Return the attempt of a stage that runs.

    Raises:
        ClusterError: None does.
    """
    attempt = stage.attempts[-1] if stage.attempts else None
    if attempt is None or not attempt.active:
        raise ClusterError(f"stage {stage.name!r} is {stage.state}: nothing of it runs")
    if attempt.placed is None:
        why = f": {attempt.waits}" if attempt.waits else ""
        raise ClusterError(f"stage {stage.name!r} has no place yet{why}")
    return attempt
