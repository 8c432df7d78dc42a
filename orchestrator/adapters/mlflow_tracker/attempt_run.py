"""The MLflow run of an attempt, for what writes there besides the tracker: the attempt's command.

The tracker makes that run; here it is only looked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.mlflow_tracker.experiment import MlflowExperiment
from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError, RefusedError
from orchestrator.adapters.mlflow_tracker.rest import ServerAccess
from orchestrator.messages import AttemptRequest
from orchestrator.ports import Clock

_LOOK_SECONDS = 0.5


def run_variables(
    request: AttemptRequest, access: ServerAccess, clock: Clock, patience: float
) -> tuple[Mapping[str, str], str]:
    """Return the variables by which MLflow's client writes to the run of an attempt.

    Where it is not to be had within `patience` seconds, nothing and the reason.
    """
    if request.tracked is None:
        return {}, "nothing is tracked"
    uri, name = request.tracked.uri, request.tracked.experiment
    server = MlflowExperiment(uri, name, access)
    why, until = "", clock.monotonic() + patience
    try:
        while True:
            try:
                server.connect(create=False)
                runs = dict(server.all_of(request.run))
                if request.key in runs:
                    return _variables(uri, server.experiment_id, runs[request.key].id), ""
                why = f"{uri} does not show it after {patience:g} s"
            except (AwayError, RefusedError) as error:
                why = f"{error}; name an address in tracking.uri that the pool's hosts reach"
            if clock.monotonic() >= until:
                return {}, why
            clock.sleep(_LOOK_SECONDS)
    finally:
        server.close()


def _variables(uri: str, experiment: str, run: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_EXPERIMENT_ID": experiment,
        "MLFLOW_RUN_ID": run,
    }
