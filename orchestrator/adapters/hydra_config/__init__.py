"""Configs: composed by Hydra, parsed once, all problems at once with their path.

`parse` takes what was composed before and needs no Hydra; the rest imports it when called.
"""

from orchestrator.adapters.hydra_config.changing import changed, replaced
from orchestrator.adapters.hydra_config.config_completion import complete, pools
from orchestrator.adapters.hydra_config.hydra_calls import compose, info, show, sweep, try_compose
from orchestrator.adapters.hydra_config.parse import parse

__all__ = [
    "changed",
    "complete",
    "compose",
    "info",
    "parse",
    "pools",
    "replaced",
    "show",
    "sweep",
    "try_compose",
]
