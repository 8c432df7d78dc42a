"""`orchestrator resume RUN`: go on with a run that did not succeed, or was lost."""

from __future__ import annotations

import argparse
import shlex

from orchestrator import session, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import launch, runs, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.core.run import Run
from orchestrator.core.state import RunState


def run(args: argparse.Namespace) -> Exit:
    """Have the run go on; finished stages stay, others go on from their checkpoints."""
    store = wiring.event_store(wiring.home())
    one = runs.load(store, store.header(args.run))
    if one.state is RunState.SUCCEEDED and args.since is None:
        return _ended(one)
    if not one.done:
        session.claim(store, one.header, by_force=args.take_over)
    how = session.Again(since=args.since, attempts=args.attempts, limits=tuple(args.overrides))
    if one.done or how != session.Again():
        one = session.reopen(store, one, how)
    return go_on(args, one)


def go_on(args: argparse.Namespace, one: Run) -> Exit:
    """Drive a run that has not ended, here or as a Ray job."""
    at = wiring.home()
    order = session.Order(
        found=hydra_config.parse(one.header.config),
        header=wiring.event_store(at).header(one.header.run),
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
    name = one.header.run
    print(f"Run {name} has already ended: {one.state}.")
    again = shlex.join(["orchestrator", "launch", *one.header.flags, *one.header.overrides])
    commands = [
        ("To launch it again, which reuses finished stages:", again),
        ("To go on from one of its stages:", f"orchestrator resume {name} --from STAGE"),
        ("To run a stage again from its beginning:", f"orchestrator rerun {name} STAGE"),
        ("To see its stages:", f"orchestrator status {name}"),
    ]
    tables.console().print(tables.useful_commands(commands))
    return of_state(one.state)
