"""`orchestrator promote MODEL [VERSION]`: make a version the champion of its model.

It moves no traffic: that is `traffic`, `switch` and `rollback`, which make the champion what they
give all traffic to.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.steps import Step
from orchestrator.service.models import promote


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Promote the version that is named, or the candidate."""
    change = promote(args.model, args.version, force=args.force, start=not args.dry_run)
    said = "Version {0.number} of {0.name} is the champion."
    return [Step.of(change, lambda version: print(said.format(version)))]
