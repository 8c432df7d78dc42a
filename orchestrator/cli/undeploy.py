"""`orchestrator undeploy ENDPOINT [rN]`: take an endpoint away, or one of its revisions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial

from orchestrator import wiring
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints.life import EndpointLife, RevisionRetired, RevisionState, follow
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.endpoints import revisions

_REVISION = re.compile(r"r(\d+)")


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Retire what is named; its replicas go once their streams have ended."""
    store = wiring.endpoint_store(wiring.home())
    life, reason = store.endpoint(args.endpoint), f"taken away by {wiring.user()}"
    if not life.live:
        known = ", ".join(name for name, one in store.endpoints().items() if one.live) or "none"
        raise NotFoundError(f"no endpoint {args.endpoint!r}; there are: {known}")
    if args.revision is None:
        names = ", ".join(one.name for one in life.live)
        return [Step(f"retire all of {life.name}: {names}", partial(_end, life, reason))]
    found = _REVISION.fullmatch(args.revision)
    if found is None:
        what = f"{args.revision!r} is no revision"
        raise ConfigError([Problem("undeploy", what, "write it as r2")])
    retired = RevisionRetired(int(found[1]), reason)
    _check(life, retired.number)
    follow(life, retired, wiring.clock().now())
    return [Step(f"retire {args.revision} of {life.name}", partial(_retire, life, retired))]


def _check(life: EndpointLife, number: int) -> None:
    """Refuse to retire who has all traffic while another could take it."""
    ready = (one for one in life.live if one.state is RevisionState.READY)
    other = next((one.name for one in ready if one.number != number), "")
    if life.shares.get(number) and len(life.shares) == 1 and other:
        what = f"r{number} has all traffic of {life.name!r}"
        hint = f"`traffic {life.name} {other}=100` moves it, `undeploy {life.name}` ends it all"
        raise ConfigError([Problem("undeploy", what, hint)])


def _end(life: EndpointLife, reason: str) -> None:
    revisions.end(wiring.endpoint_store(wiring.home()), life, reason, wiring.clock().now())
    print(f"Endpoint {life.name} answers no more.")


def _retire(life: EndpointLife, retired: RevisionRetired) -> None:
    store = wiring.endpoint_store(wiring.home())
    store.follow(life, [retired], wiring.clock().now())
    print(f"Revision r{retired.number} of {life.name} is retired.")
