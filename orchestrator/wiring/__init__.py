"""The composition root: alone it chooses adapters, and reads settings from the environment.

`config_source.py` has configs composed and planned, `adapters.py` makes what a run works with,
`code.py` has its code travel, `serving_adapters.py`
makes what serves, `pool_verdicts.py` what is known of pools, `home_folder.py` where all state is,
`storage.py` where artifacts are, and `host_services.py` what this machine runs for them.
Adapters are imported by the function that needs them, so that a command pays only for what it
uses: `plan` imports no Ray, `status` no Hydra, help nothing at all.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from orchestrator.wiring.adapters import (
    clock,
    cluster,
    cluster_address,
    database,
    gates,
    has_database,
    output,
    pinned,
    run_worker,
    tracker,
    variable,
    warm_worker,
)
from orchestrator.wiring.code import (
    attempt_defaults,
    changed,
    job_forecasts,
    ship,
    weigh,
    with_code,
)
from orchestrator.wiring.config_source import ConfigSource, plan, planned, settings
from orchestrator.wiring.foreign_cluster import (
    check_handing_over,
    elsewhere,
    hands_far,
    head_facts,
    job_server,
    node_reports,
    other_versions,
    shared_code,
    submit,
    take_over_environment,
    versions,
)
from orchestrator.wiring.home_folder import (
    check_working_folder,
    home,
    home_id,
    home_path,
    refusal,
)
from orchestrator.wiring.host_services import (
    check_services,
    find_cluster,
    find_gateway,
    foreign,
    gateway_port,
    keep_reaper,
    node_identities,
    pool_states,
    raise_if_leaving,
    reaper_stays,
    running,
    services_elsewhere,
    stacks,
    start_cluster,
    start_gateway,
    start_reaper,
    start_tracking,
    stop_cluster,
    stop_gateway,
    stop_reaper,
    stop_tracking,
    to_start,
    uses_ours,
    views,
)
from orchestrator.wiring.housekeeping import copy_database, shown_database, sweep_cache
from orchestrator.wiring.pool_verdicts import (
    config_of_last,
    findings,
    nodes_of,
    time_of_verdicts,
    verdicts,
    vetted,
)
from orchestrator.wiring.secret_values import secret_problems
from orchestrator.wiring.serving_adapters import (
    Outage,
    endpoints_here,
    fetch_model,
    forget_endpoints,
    gateway_limits,
    gateway_settings,
    gateway_url,
    model_config,
    outage,
    outside_key,
    replicas,
    served_models,
    serving,
    serving_cluster,
    shares_database,
    tracing,
    traffic,
    way_up,
)
from orchestrator.wiring.storage import (
    artifact_store,
    prove_storage,
    prove_storage_here,
    storage_uri,
)
from orchestrator.wiring.tracking import bury, follow_traffic, registry, unshow
from orchestrator.wiring.user import commit, host, machine, provide_user, user

if TYPE_CHECKING:
    from orchestrator.adapters import hydra_config as configs

__all__ = [
    "ConfigSource",
    "Outage",
    "artifact_store",
    "attempt_defaults",
    "bury",
    "changed",
    "check_handing_over",
    "check_services",
    "check_working_folder",
    "clock",
    "cluster",
    "cluster_address",
    "commit",
    "config_of_last",
    "configs",
    "copy_database",
    "database",
    "elsewhere",
    "endpoints_here",
    "fetch_model",
    "find_cluster",
    "find_gateway",
    "findings",
    "follow_traffic",
    "foreign",
    "forget_endpoints",
    "gates",
    "gateway_limits",
    "gateway_port",
    "gateway_settings",
    "gateway_url",
    "hands_far",
    "has_database",
    "head_facts",
    "home",
    "home_id",
    "home_path",
    "host",
    "job_forecasts",
    "job_server",
    "keep_reaper",
    "machine",
    "model_config",
    "node_identities",
    "node_reports",
    "nodes_of",
    "other_versions",
    "outage",
    "output",
    "outside_key",
    "pinned",
    "plan",
    "planned",
    "pool_states",
    "prove_storage",
    "prove_storage_here",
    "provide_user",
    "raise_if_leaving",
    "reaper_stays",
    "refusal",
    "registry",
    "replicas",
    "run_worker",
    "running",
    "secret_problems",
    "served_models",
    "services_elsewhere",
    "serving",
    "serving_cluster",
    "settings",
    "shared_code",
    "shares_database",
    "ship",
    "shown_database",
    "stacks",
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
    "sweep_cache",
    "take_over_environment",
    "time_of_verdicts",
    "to_start",
    "tracing",
    "tracker",
    "traffic",
    "unshow",
    "user",
    "uses_ours",
    "variable",
    "verdicts",
    "versions",
    "vetted",
    "views",
    "warm_worker",
    "way_up",
    "weigh",
    "with_code",
]


def __getattr__(name: str) -> ModuleType:
    """Return `configs`, which most commands do not need, when it is asked for."""
    if name == "configs":
        return import_module("orchestrator.adapters.hydra_config")
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
