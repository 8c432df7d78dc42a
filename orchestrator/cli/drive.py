"""`orchestrator _drive RUN`: the controller of a detached run, as a Ray job starts it."""

from __future__ import annotations

import argparse

from orchestrator import session, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView


def run(args: argparse.Namespace) -> Exit:
    """Drive a run that the event store has, on the services that are up."""
    at = wiring.home()
    store = wiring.event_store(at)
    header = store.header(args.run)
    found = hydra_config.parse(header.config)
    with (
        session.begun(store, header),
        LiveView(tables.console(), starting=session.starting(found)) as view,
        session.services(
            found, at, session.startable(found, header.plan), keep=lambda: True
        ) as addresses,
    ):
        order = session.Order(
            found=found, header=header, at=at, reuse=not args.no_cache, by_force=args.take_over
        )
        final = session.resume(order, addresses, view)
    return of_state(final.state)
