"""Modules of shipped jobs that have another name than in an earlier version.

A run of before names its jobs so, and so may a config of a user's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MOVED_JOBS: Mapping[str, str] = MappingProxyType(
    {
        "jobs.evaluation.dataset": "jobs.evaluation.held_out",
        "jobs.qualification.gang": "jobs.qualification.all_chips",
        "jobs.qualification.reference": "jobs.qualification.host_reference",
    }
)


def job_of_today(job: str) -> str:
    """Return the dotted name that `job` has today."""
    module, _, function = job.rpartition(".")
    return f"{MOVED_JOBS[module]}.{function}" if module in MOVED_JOBS else job
