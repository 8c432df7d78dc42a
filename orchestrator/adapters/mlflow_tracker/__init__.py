"""The database, shown in MLflow: a run and its attempts as a tree of MLflow runs.

`tracker.py` is the thread, `projection.py` decides what stands where, `fields.py` and `words.py`
say it as tags and text, `experiment.py` and `rest.py` are the way to MLflow, whose package nothing
but `foreign_artifacts.py` imports.
"""

from orchestrator.adapters.mlflow_tracker.attempt_run import run_variables
from orchestrator.adapters.mlflow_tracker.model_registry import Models
from orchestrator.adapters.mlflow_tracker.orphaned_runs import reap
from orchestrator.adapters.mlflow_tracker.projection import TrackedRuns
from orchestrator.adapters.mlflow_tracker.rest import ServerAccess
from orchestrator.adapters.mlflow_tracker.run_erasure import erase
from orchestrator.adapters.mlflow_tracker.tracker import MlflowTracker, Pace

__all__ = [
    "MlflowTracker",
    "Models",
    "Pace",
    "ServerAccess",
    "TrackedRuns",
    "erase",
    "reap",
    "run_variables",
]
