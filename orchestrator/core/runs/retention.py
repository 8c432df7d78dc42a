"""Which runs may be forgotten, and which things of those that stay.

Kept whole is a run that isn't over, or that can be resumed; one of the newest, or that ended not
long ago; what a live endpoint was deployed by, and what a rollback of it would deploy anew; and
what a run goes on from that isn't over. Of a run whose artifacts any of those uses, or that made a
model with an alias, the record and the artifacts stay: only what is kept of its way there may go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState

# Whoever has such a run may still want to go on with it, from its checkpoints.
WITH_A_WAY_BACK = frozenset({RunState.PAUSED, RunState.FAILED, RunState.CANCELLED})
DAY = 86_400.0
_PARTS = 3  # of the name of an artifact: run, stage, attempt


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: the `newest` runs that are over, and those that ended in the last `days`.

    Those that can be resumed are kept too, unless `resumable` ones may go.
    """

    newest: int = 20
    days: float = 30.0
    resumable: bool = False


@dataclass(frozen=True, slots=True)
class Uses:
    """What is in use: the `runs` that deployed revisions, and the artifacts that these serve.

    Revisions are those that live, and those that a rollback goes back to.

    `digests` are of the models that have an alias in the registry.
    """

    runs: Collection[str] = ()
    artifacts: Collection[ArtifactRef] = ()
    digests: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Disposable:
    """The runs that nothing needs any more, and those of which `results` alone are needed."""

    whole: Sequence[Run]
    results: Sequence[Run]


def disposable(runs: Collection[Run], uses: Uses, rules: Retention, now: float) -> Disposable:
    """Return what of `runs` may be forgotten at `now` (seconds, epoch), the oldest first."""
    known = {run.header.run: run for run in runs}
    ordered = sorted(runs, key=_ended, reverse=True)
    over = [run for run in ordered if run.done]
    young = {run.header.run for run in over[: rules.newest]}
    young |= {run.header.run for run in over if now - _ended(run) < rules.days * DAY}
    kept = {name for name, run in known.items() if _may_go_on(run, rules)} | young | set(uses.runs)
    kept |= {known[name].header.continues for name in kept & known.keys()} - {""}
    named = set(uses.digests)
    used = {n for n, run in known.items() if any(ref.digest in named for ref in artifacts(run))}
    used |= {maker_of(ref) for ref in uses.artifacts}
    used = _with_makers(known, kept | used)
    gone = [run for run in reversed(ordered) if run.header.run not in kept]
    return Disposable(
        whole=[run for run in gone if run.header.run not in used],
        results=[run for run in gone if run.header.run in used],
    )


def artifacts(run: Run) -> Iterator[ArtifactRef]:
    """Yield what the stages of a run have made, or taken from earlier ones."""
    for stage in run.stages.values():
        if stage.artifact is not None:
            yield stage.artifact


def name_of(ref: ArtifactRef) -> str:
    """Return the name of an artifact in its store: `RUN/STAGE/ATTEMPT`."""
    return "/".join(ref.uri.rstrip("/").split("/")[-_PARTS:])


def maker_of(ref: ArtifactRef) -> str:
    """Return the run that has made an artifact."""
    return name_of(ref).split("/", maxsplit=1)[0]


def _ended(run: Run) -> float:
    return run.ended or run.at or run.header.created


def _may_go_on(run: Run, rules: Retention) -> bool:
    return not run.done or (run.state in WITH_A_WAY_BACK and not rules.resumable)


def _with_makers(runs: Mapping[str, Run], names: Collection[str]) -> set[str]:
    """Return `names`, with the runs that made what those use, and what these use in turn."""
    used, ahead = set[str](), list(names)
    while ahead:
        name = ahead.pop()
        if name not in used:
            used.add(name)
            if name in runs:
                ahead.extend(maker_of(ref) for ref in artifacts(runs[name]))
    return used
