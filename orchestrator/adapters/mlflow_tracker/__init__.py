"""The event store, shown in MLflow: a run and its attempts as a tree of MLflow runs.

`tracker.py` is the thread, `projection.py` decides what stands where, `fields.py` and `words.py`
say it as tags and text, `server.py` is the only file that talks to MLflow.
"""

from orchestrator.adapters.mlflow_tracker.tracker import MlflowTracker, Pace

__all__ = ["MlflowTracker", "Pace"]
