"""`orchestrator undeploy ENDPOINT [rN]`: take an endpoint away, or one of its revisions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.steps import Step
from orchestrator.service import endpoints


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Retire what is named; its replicas go once their streams have ended."""
    return [Step.of(endpoints.undeploy(args.endpoint, args.revision), print)]
