"""`orchestrator deploy`: add a revision to an endpoint, without any traffic.

`deploy RUN [KEY=VALUE...]` deploys what a run has made; `deploy ENDPOINT --address URL` takes an
OpenAI-compatible server that somebody else runs.
"""

from __future__ import annotations

import argparse

from orchestrator import wiring
from orchestrator.cli import endpoints, runs, switch
from orchestrator.cli.exits import Exit
from orchestrator.core.endpoints import (
    WHOLE,
    EndpointEvent,
    Outside,
    RevisionAdded,
    RevisionReady,
    TrafficMoved,
)
from orchestrator.core.errors import ConfigError, Problem


def run(args: argparse.Namespace) -> Exit:
    """Add a revision."""
    return _outside(args) if args.address else _ours(args)


def _ours(args: argparse.Namespace) -> Exit:
    store = wiring.event_store(wiring.home())
    made = runs.load(store, store.header(args.name))
    serving = [name for name, stage in made.stages.items() if stage.planned.stage.endpoint]
    if not serving:
        what = f"run {made.header.run!r} has no stage with an endpoint"
        raise ConfigError([Problem("deploy", what, "name one that serves")])
    quiet = [f"pipeline.stages.{name}.endpoint.rollout.steps=[]" for name in serving]
    way = switch.Way(dry=args.dry_run, unqualified=args.unqualified)
    return switch.go(made, [*args.overrides, *quiet], way, name="deploy")


def _outside(args: argparse.Namespace) -> Exit:
    if not args.address.startswith(("http://", "https://")):
        what = f"{args.address!r} is no address of a server"
        raise ConfigError([Problem("--address", what, "write http://HOST:PORT/v1")])
    store = wiring.endpoint_store(wiring.home())
    life = store.endpoint(args.name)
    number = life.next_number
    far = Outside(
        address=args.address, model=args.model or args.name, key_variable=args.key_variable
    )
    events: list[EndpointEvent] = [RevisionAdded(number, outside=far), RevisionReady(number)]
    if not life.shares:
        events.append(TrafficMoved({number: WHOLE}, "the first revision"))
    store.follow(life, events, wiring.clock().now())
    endpoints.show({args.name: store.endpoint(args.name)})
    return Exit.SUCCEEDED
