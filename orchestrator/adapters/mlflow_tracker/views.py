"""The addresses of the ready-made views, for `orchestrator ui`."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.mlflow_tracker.experiment import MlflowExperiment
from orchestrator.adapters.mlflow_tracker.rest import ServerAccess
from orchestrator.adapters.mlflow_tracker.view_states import CURVES, FAILURES, REVIEW


def links(uri: str, experiment: str, access: ServerAccess | None = None) -> Mapping[str, str]:
    """Make sure that the experiment and its views are there; return their addresses by name.

    Raises:
        TrackingError: No MLflow answers at `uri`.
    """
    server = MlflowExperiment(uri, experiment, access)
    server.connect()
    server.show_views()
    server.close()
    return addresses(uri, server.experiment_id)


def addresses(uri: str, experiment_id: str) -> Mapping[str, str]:
    """Return the address of each view by its name."""
    base = f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return {
        REVIEW: f"{base}&viewStateShareKey={REVIEW}",
        FAILURES: f"{base}&viewStateShareKey={FAILURES}",
        CURVES: f"{base}&viewStateShareKey={CURVES}&compareRunsMode=CHART",
    }
