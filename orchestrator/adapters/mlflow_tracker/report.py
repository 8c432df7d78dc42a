"""The report of a failed attempt, in markdown: what, where, what followed, and the log's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from orchestrator.adapters.mlflow_tracker.tracked_run import TrackedRun, has_begun
from orchestrator.adapters.mlflow_tracker.words import duration, pool_name
from orchestrator.core.failures.kinds import Failure
from orchestrator.core.runs.run import Attempt

LINES = 60  # of the log


def failure_report(
    tracked: TrackedRun, attempt: Attempt, failure: Failure, log: Sequence[str]
) -> str:
    """Return how `attempt` failed, as far as is known now; `log` has the last lines of its log."""
    kind = str(failure.kind).replace("_", " ")
    place = pool_name(tracked.run.plan.pools[attempt.pool])
    parts = [
        f"# {attempt.stage}, attempt {attempt.number} on {place}: {kind}",
        _block([failure.evidence]),
        *(f"- **{name}:** {text}" for name, text in _facts(tracked, attempt, failure)),
    ]
    shown = _of_rank(log, failure.rank)
    if shown:
        whose = "the log" if failure.rank is None else f"the log of rank {failure.rank}"
        parts += ["", f"## End of {whose}", _block(shown)]
    if failure.detail:
        parts += ["", "## Detail", _block(failure.detail.splitlines())]
    return "\n".join([*parts, ""])


def _facts(tracked: TrackedRun, attempt: Attempt, failure: Failure) -> Iterator[tuple[str, str]]:
    yield "run", tracked.run.header.run
    yield "pool", pool_name(tracked.run.plan.pools[attempt.pool])
    where = {"node": failure.node, "rank": failure.rank, "step": failure.step}
    yield from ((name, str(value)) for name, value in where.items() if value not in {None, ""})
    if attempt.ended is not None:
        when = datetime.fromtimestamp(attempt.ended, UTC).strftime("%Y-%m-%d %H:%M:%S")
        yield "when", f"{when} UTC, after {duration(attempt.ended - attempt.started)}"
    if attempt.saved:
        yield "last checkpoint", f"step {max(attempt.saved)}"
    yield "decision", attempt.followed or "none: the run had ended"
    following = tracked.next_to(attempt)
    if following is not None:
        yield "went on", _went_on(tracked, failure, following)


def _went_on(tracked: TrackedRun, failure: Failure, following: Attempt) -> str:
    place = pool_name(tracked.run.plan.pools[following.pool])
    text = f"attempt {following.number} on {place}"
    if not has_begun(following):
        return text
    begun = following.resumed or 0
    text += f" from step {begun}" if following.resumed is not None else " from the beginning"
    lost = max(0, (failure.step or 0) - begun)
    return f"{text}; {lost} steps lost" if lost else text


def _of_rank(log: Sequence[str], rank: int | None) -> Sequence[str]:
    """Return the last lines of the rank that failed; of all where it said nothing."""
    own_lines = [line for line in log if line.startswith(f"[{rank}] ")]
    return (own_lines or log)[-LINES:]


def _block(lines: Sequence[str]) -> str:
    """Return lines as they are, indented: so nothing in them is read as markdown."""
    return "\n".join(["", *(f"    {line}" for line in lines), ""])
