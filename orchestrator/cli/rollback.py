"""`orchestrator rollback ENDPOINT`: back to the revision before, at once where it is there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli import switch
from orchestrator.cli.steps import Step
from orchestrator.service.switching import rollback


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Give all traffic back to the revision before."""
    back = rollback(args.endpoint)
    name, pool = back.earlier.name, back.earlier.pool
    if back.at_once is not None:
        said = f"All traffic of {args.endpoint} goes to {name} on {pool}."
        return [Step.of(back.at_once, lambda _: print(said))]
    assert back.anew is not None, "it is one or the other"  # noqa: S101
    print(f"{name} is {back.earlier.state}: its model is deployed anew on {pool}.")
    return switch.steps_of(back.anew)
