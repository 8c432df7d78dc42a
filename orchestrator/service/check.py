"""What a look at a machine, or at a cluster, comes to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, its status (`ok`, `warning`, `error`), and what was found."""

    check: str
    status: str
    finding: str
