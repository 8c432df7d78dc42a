"""Ends the MLflow runs of pipeline runs whose controller has died: nothing else ever would."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.adapters.mlflow_tracker.experiment import RUNNING, MlflowExperiment
from orchestrator.adapters.mlflow_tracker.mlflow_errors import RefusedError
from orchestrator.adapters.mlflow_tracker.rest import ServerAccess

ORPHANED = "orchestrator.orphaned"


def reap(
    uri: str,
    experiment: str,
    runs: Iterable[str],
    reason: str,
    now: float,
    access: ServerAccess | None = None,
) -> int:
    """End as killed, at `now` (seconds, epoch), what is shown as running of `runs`; count it.

    Each is tagged with the `reason`. A tracker that goes on with the run takes both back.

    Raises:
        TrackingError: MLflow is away; what is left is ended by a later call.
    """
    server = MlflowExperiment(uri, experiment, access)
    try:
        server.connect(create=False)
        return sum(_end(server, run, reason, now) for run in runs)
    except RefusedError:
        return 0  # there is no such experiment: nothing was ever shown
    finally:
        server.close()


def _end(server: MlflowExperiment, run: str, reason: str, now: float) -> int:
    """End a run and its attempts, itself last: a call that breaks off is made again."""
    shown = server.shown(run)
    live = [key for key in sorted(shown, key=len, reverse=True) if shown[key].status == RUNNING]
    for key in live:
        server.log(shown[key].id, tags={ORPHANED: reason})
        server.end(shown[key].id, "KILLED", now)
    return len(live)
