"""`orchestrator rollback ENDPOINT`: back to the revision before, at once where it is there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from orchestrator import wiring
from orchestrator.cli import endpoints, switch
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints.life import (
    WHOLE,
    EndpointLife,
    Revision,
    RevisionState,
    SharesMoved,
)
from orchestrator.core.errors import NotFoundError


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Give all traffic back to the revision before."""
    store = wiring.endpoint_store(wiring.home())
    life = store.endpoint(args.endpoint)
    if life.leading is None:
        raise endpoints.not_served(args.endpoint, store.endpoints())
    earlier = _ready(life)
    if earlier is not None:
        what = f"give all traffic of {life.name} to {earlier.name} on {earlier.pool}"
        return [Step(what, partial(_move, life, earlier))]
    before = life.before
    if before is None or before.deployment is None:
        raise NotFoundError(f"endpoint {life.name!r} has no revision before {life.leading.name}")
    print(f"{before.name} is {before.state}: its model is deployed anew on {before.pool}.")
    overrides = [f"roles.serve={before.pool}", *_at_once(before)]
    made = switch.run_of(life, before.number)
    # It has served there.
    way = switch.Way(unqualified=True, weights=switch.weights_of(before))
    return switch.steps_of(made, overrides, way, name="rollback")


def _move(life: EndpointLife, earlier: Revision) -> None:
    store = wiring.endpoint_store(wiring.home())
    moved = SharesMoved({earlier.number: WHOLE}, f"rolled back by {wiring.user()}")
    store.follow(life, [moved], wiring.clock().now())
    print(f"All traffic of {life.name} goes to {earlier.name} on {earlier.pool}.")
    wiring.follow_traffic(wiring.home(), store.endpoint(life.name))


def _ready(life: EndpointLife) -> Revision | None:
    """Return who led before, where it is ready; while a newer one is on its way, who leads now."""
    leading, before = life.leading, life.before
    if leading is not None and max(life.shares) > leading.number:
        return leading
    return before if before and before.state is RevisionState.READY else None


def _at_once(revision: Revision) -> list[str]:
    """Return overrides that move all traffic in one step: it has served before."""
    made = revision.deployment
    assert made is not None, "only those of ours are deployed anew"  # noqa: S101
    where = f"pipeline.stages.{made.stage}.endpoint.rollout"
    return [f"{where}={{steps: [100], hold: 0}}"]
