"""What a look at a machine, or at a cluster, comes to."""

from __future__ import annotations

from dataclasses import dataclass

# What a machine, or a node, should have free: on a disk, and in the memory that processes share.
LEAST_FREE_GB = 5.0
LEAST_SHARED_MEMORY_GB = 0.5
GB = 1e9


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, its status (`ok`, `warning`, `error`), and what was found."""

    check: str
    status: str
    finding: str
