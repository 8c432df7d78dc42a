"""Artifacts that the server doesn't take itself (`s3://`, ...): MLflow's own client writes them.

The only file that imports MLflow, and only where a server of somebody else's is set up so.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError, RefusedError
from orchestrator.adapters.mlflow_tracker.rest import FOR_EVER

_SWITCHES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def write(uri: str, run_id: str, path: str, text: str) -> None:
    """Write a text artifact of an MLflow run to where the server says that it belongs.

    Raises:
        AwayError: The server, or that place, does not answer.
        RefusedError: A package for that place is missing, or it takes no file from us.
    """
    with ThreadPoolExecutor(1) as pool:  # each store's package has a tree of errors of its own
        error = pool.submit(_write, uri, run_id, path, text).exception()
    if error is not None:
        line = " ".join(str(error).split())[:500]
        status = getattr(error, "get_http_status_code", lambda: 0)()
        away = isinstance(error, OSError) or status not in {0, *FOR_EVER}
        raise (AwayError if away else RefusedError)(line) from error


def _write(uri: str, run_id: str, path: str, text: str) -> None:
    for key, value in _SWITCHES.items():
        os.environ.setdefault(key, value)  # noqa: TID251 - MLflow takes these from nowhere else
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=uri).log_text(run_id, text, path)
