"""The composition root: the only place that chooses adapters or reads the environment.

`adapters.py` makes what a run works with, `services.py` what this machine runs for it. Adapters
are imported by the function that needs them, so that a command pays only for what it uses: `plan`
imports no Ray, `status` no Hydra, help nothing at all.
"""

from orchestrator.wiring.adapters import (
    artifact_store,
    clock,
    cluster,
    cluster_address,
    endpoint_url,
    event_store,
    fetch_model,
    gates,
    home,
    pinned,
    plan,
    run_worker,
    serving,
    settings,
    storage_uri,
    tracker,
    workbench,
)
from orchestrator.wiring.services import (
    find_cluster,
    pool_states,
    running,
    start_cluster,
    start_reaper,
    start_tracking,
    stop_cluster,
    stop_reaper,
    stop_tracking,
    submit,
    views,
)
from orchestrator.wiring.tracking import bury

__all__ = [
    "artifact_store",
    "bury",
    "clock",
    "cluster",
    "cluster_address",
    "endpoint_url",
    "event_store",
    "fetch_model",
    "find_cluster",
    "gates",
    "home",
    "pinned",
    "plan",
    "pool_states",
    "run_worker",
    "running",
    "serving",
    "settings",
    "start_cluster",
    "start_reaper",
    "start_tracking",
    "stop_cluster",
    "stop_reaper",
    "stop_tracking",
    "storage_uri",
    "submit",
    "tracker",
    "views",
    "workbench",
]
