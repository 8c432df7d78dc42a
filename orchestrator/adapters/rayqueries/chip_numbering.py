"""Which chips Ray numbers: those of makers that it knows, and what else a node was started with.

Of any other resource it knows how much a process holds, and calls all of it number 0. Ray itself
is not imported here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

NUMBERED = "RAY_custom_unit_instance_resources"  # a node numbers these, and its workers inherit it
_ALWAYS = "GPU"
_RAYS_OWN = ("neuron_cores", "TPU", "NPU", "HPU", "RBLN", "FURIOSA", "TTNPU", "MBLT")


def numbering(resources: Sequence[str]) -> str:
    """Return the value of `NUMBERED` that adds `resources` to those that Ray knows."""
    return ",".join(dict.fromkeys((*_RAYS_OWN, *resources)))


def is_numbered(resource: str, environment: Mapping[str, str] = os.environ) -> bool:  # noqa: TID251 - of the node
    """Whether the node of this process numbers the chips `resource`."""
    return resource in (_ALWAYS, *environment.get(NUMBERED, numbering(())).split(","))
