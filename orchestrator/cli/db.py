"""`orchestrator db copy FROM TO`: bring what is in one database into another."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from orchestrator.cli.steps import Step
from orchestrator.service.copying import copy


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Copy all tables."""
    return [Step.of(copy(args.source, args.target), _tell)]


def _tell(counts: Mapping[str, int]) -> None:
    print(f"{sum(counts.values()):,} rows of {len(counts)} tables are copied.")
    print("Set ORCHESTRATOR_DATABASE to the new address on all hosts, and ORCHESTRATOR_SECRET to")
    print("what the file `secret` of this home says: it opens the replicas of endpoints.")
