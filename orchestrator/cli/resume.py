"""`orchestrator resume RUN`: go on with a run whose controller is gone."""

from __future__ import annotations

import argparse
import shlex

from orchestrator import session, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import launch, runs, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.core.run import Run


def run(args: argparse.Namespace) -> Exit:
    """Take the run over; finished stages stay, others go on from their checkpoints."""
    at = wiring.home()
    store = wiring.event_store(at)
    one = runs.load(store, store.header(args.run))
    if one.done:
        return _ended(one)
    session.claim(store, one.header, by_force=args.take_over)
    order = session.Order(
        found=hydra_config.parse(one.header.config),
        header=one.header,
        at=at,
        reuse=not args.no_cache,
        by_force=args.take_over,
    )
    return _detach(order) if args.detach else drive(order)


def drive(order: session.Order) -> Exit:
    """Drive the run here to its end."""
    finals: list[Run] = []
    out = tables.console()
    pools = session.startable(order.found, order.header.plan)
    with (
        LiveView(out) as view,
        session.services(
            order.found, order.at, pools, keep=lambda: any(map(session.serves, finals))
        ) as addresses,
    ):
        out.print(f"\nRun [bold]{order.header.run}[/] goes on")
        finals.append(session.resume(order, addresses, view))
        launch.summarise(finals[-1], out.print)
    return of_state(finals[-1].state)


def _detach(order: session.Order) -> Exit:
    launch.check_detachable([order.found])
    pools = session.startable(order.found, order.header.plan)
    with session.services(order.found, order.at, pools, keep=lambda: True):
        launch.hand_over(order)
    return Exit.SUCCEEDED


def _ended(one: Run) -> Exit:
    print(f"Run {one.header.run} has already ended: {one.state}.")
    if one.reason:
        print(one.reason)
    again = shlex.join(["orchestrator", "launch", *one.header.overrides])
    commands = [
        ("To launch it again, which reuses finished stages:", again),
        ("To see its stages:", f"orchestrator status {one.header.run}"),
    ]
    tables.console().print(tables.useful_commands(commands))
    return of_state(one.state)
