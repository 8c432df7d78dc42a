"""`orchestrator undeploy ENDPOINT [rN]`: take an endpoint away, or one of its revisions."""

from __future__ import annotations

import argparse
import getpass
import re

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.control import revisions
from orchestrator.core.endpoints import RevisionRetired
from orchestrator.core.errors import ConfigError, NotFoundError, Problem

_REVISION = re.compile(r"r(\d+)")


def run(args: argparse.Namespace) -> Exit:
    """Retire what is named; its replicas go once their streams have ended."""
    store, now = wiring.endpoint_store(wiring.home()), wiring.clock().now()
    life, reason = store.endpoint(args.endpoint), f"taken away by {getpass.getuser()}"
    if not life.live:
        known = ", ".join(name for name, one in store.endpoints().items() if one.live) or "none"
        raise NotFoundError(f"no endpoint {args.endpoint!r}; there are: {known}")
    if args.revision is None:
        revisions.end(store, life, reason, now)
        print(f"Endpoint {life.name} answers no more.")
        return Exit.SUCCEEDED
    found = _REVISION.fullmatch(args.revision)
    if found is None:
        what = f"{args.revision!r} is no revision"
        raise ConfigError([Problem("undeploy", what, "write it as r2")])
    store.follow(life, [RevisionRetired(int(found[1]), reason)], now)
    print(f"Revision {args.revision} of {life.name} is retired.")
    return Exit.SUCCEEDED
