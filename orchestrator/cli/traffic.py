"""`orchestrator traffic ENDPOINT r1=90 r2=10`: share the traffic between revisions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.endpoints import show
from orchestrator.cli.steps import Step
from orchestrator.service import endpoints


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Move the traffic of an endpoint."""
    change = endpoints.traffic(args.endpoint, args.shares)
    return [Step.of(change, lambda _: show(endpoints.endpoints(args.endpoint)))]
