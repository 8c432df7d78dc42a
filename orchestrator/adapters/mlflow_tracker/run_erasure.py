"""Deletes the MLflow runs of pipeline runs that are forgotten, but for those that made a model.

MLflow marks them as deleted, and shows them no more: its own `mlflow gc` frees what they hold.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.adapters.mlflow_tracker.experiment import MlflowExperiment
from orchestrator.adapters.mlflow_tracker.mlflow_errors import RefusedError
from orchestrator.adapters.mlflow_tracker.model_registry import Models
from orchestrator.adapters.mlflow_tracker.rest import ServerAccess

_MAKERS = ("run", "registered_by")  # tags of a version


def erase(
    uri: str,
    experiment: str,
    runs: Iterable[str],
    access: ServerAccess | None = None,
    *,
    dry: bool,
) -> int:
    """Delete what is shown of `runs`, their attempts too; return how many MLflow runs that are.

    All that is shown of a run stays where a version of a model in the registry comes from it,
    whoever registered that. A `dry` one only counts.

    Raises:
        TrackingError: MLflow is away; what is left is deleted by a later call.
    """
    models, server = Models(uri, access), MlflowExperiment(uri, experiment, access)
    try:
        server.connect(create=False)
        versions = models.versions()
        makers = {version.tags.get(tag) for version in versions for tag in _MAKERS}
        sources = {version.run_id for version in versions}
        return sum(_erase(server, run, sources, dry=dry) for run in runs if run not in makers)
    except RefusedError:
        return 0  # there is no such experiment: nothing was ever shown
    finally:
        server.close()
        models.close()


def _erase(server: MlflowExperiment, run: str, sources: set[str], *, dry: bool) -> int:
    """Delete a run and its attempts, itself last: a call that breaks off is made again."""
    shown_runs = server.all_of(run)
    if sources & {shown.id for _, shown in shown_runs}:
        return 0
    for _, shown in sorted(shown_runs, key=lambda pair: len(pair[0]), reverse=True):
        if not dry:
            server.delete(shown.id)
    return len(shown_runs)
