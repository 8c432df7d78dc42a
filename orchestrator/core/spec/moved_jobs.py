"""Shipped jobs that have another name than in an earlier version.

A run of before names its jobs so, and so may a config of a user's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MOVED_JOBS: Mapping[str, str] = MappingProxyType(
    {
        "jobs.evaluation.dataset.evaluate": "jobs.evaluation.held_out.evaluate",
        "jobs.evaluation.evaluate": "jobs.evaluation.held_out.evaluate",
        "jobs.qualification.gang.qualify_gang": "jobs.qualification.all_chips.qualify_gang",
        "jobs.qualification.reference.qualify_reference": (
            "jobs.qualification.host_reference.qualify_reference"
        ),
    }
)


def job_of_today(job: str) -> str:
    """Return the dotted name that `job` has today."""
    return MOVED_JOBS.get(job, job)
