"""The composition root: the only place that chooses adapters or reads the environment.

`adapters.py` makes what a run works with, `endpoints.py` what serves, `services.py` what this
machine runs for them. Adapters
are imported by the function that needs them, so that a command pays only for what it uses: `plan`
imports no Ray, `status` no Hydra, help nothing at all.
"""

from orchestrator.wiring.adapters import (
    artifact_store,
    clock,
    cluster,
    cluster_address,
    event_store,
    gates,
    home,
    pinned,
    plan,
    planned,
    run_worker,
    settings,
    storage_uri,
    tracker,
    variable,
    workbench,
)
from orchestrator.wiring.endpoints import (
    endpoint_store,
    fetch_model,
    forget_endpoints,
    replicas,
    serving,
    traffic,
)
from orchestrator.wiring.services import (
    find_cluster,
    find_gateway,
    pool_states,
    running,
    start_cluster,
    start_gateway,
    start_reaper,
    start_tracking,
    stop_cluster,
    stop_gateway,
    stop_reaper,
    stop_tracking,
    submit,
    views,
)
from orchestrator.wiring.tracking import bury, follow_traffic, registry

__all__ = [
    "artifact_store",
    "bury",
    "clock",
    "cluster",
    "cluster_address",
    "endpoint_store",
    "event_store",
    "fetch_model",
    "find_cluster",
    "find_gateway",
    "follow_traffic",
    "forget_endpoints",
    "gates",
    "home",
    "pinned",
    "plan",
    "planned",
    "pool_states",
    "registry",
    "replicas",
    "run_worker",
    "running",
    "serving",
    "settings",
    "start_cluster",
    "start_gateway",
    "start_reaper",
    "start_tracking",
    "stop_cluster",
    "stop_gateway",
    "stop_reaper",
    "stop_tracking",
    "storage_uri",
    "submit",
    "tracker",
    "traffic",
    "variable",
    "views",
    "workbench",
]
