"""`orchestrator update ENDPOINT MODEL VERSION`: live weights, without a new revision."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.steps import Step
from orchestrator.service.updating import update


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Have the endpoint serve the version that is named."""
    change = update(args.endpoint, args.model, args.version, start=not args.dry_run)
    if isinstance(change, str):
        print(change)
        return []
    return [Step.of(change, lambda lines: print("\n".join(lines)))]
