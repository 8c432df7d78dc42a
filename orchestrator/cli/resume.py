"""`orchestrator resume RUN`: go on with a run that did not succeed, or was lost."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from orchestrator import session, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import launch, runs, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import PlanError
from orchestrator.core.runs.reopening import halted
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunReopened, RunState
from orchestrator.ports import Leases


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Have the run go on; finished stages stay, others go on from their checkpoints."""
    store = wiring.event_store(wiring.home())
    one = runs.load(store, store.header(args.run))
    if one.state is RunState.SUCCEEDED and args.since is None:
        return _ended(one)
    if not one.done:
        one = session.claim(store, one.header, by_force=args.take_over)
    how = session.Again(since=args.since, attempts=args.attempts, limits=tuple(args.overrides))
    if one.done or how != session.Again():
        return steps_of(args, one, session.reopening(store, one, how))
    if halted(one):
        with suppress(PlanError):  # where a limit holds them, the other stages go on
            return steps_of(args, one, session.reopening(store, one, how))
    return steps_of(args, one)


def steps_of(
    args: argparse.Namespace, one: Run, event: RunReopened | None = None
) -> Sequence[Step]:
    """Return how to drive a run on, here or as a Ray job; `event` opens it again before."""
    at = wiring.home()
    store = wiring.event_store(at)
    order = session.Order(
        found=hydra_config.parse(one.header.config),
        header=store.header(one.header.run),
        at=at,
        reuse=not args.no_cache,
        by_force=args.take_over,
    )
    if args.detach:
        launch.check_detachable([order.found])
    how = "hand over to a Ray job" if args.detach else "drive on"
    taken = f"\ntaking it from {_controller(store, one)}" if args.take_over else ""
    go = partial(_detach if args.detach else drive, order)
    steps = [Step(f"{how} run {one.header.run}{taken}", go)]
    if event is not None:
        steps.insert(0, Step("\n".join(_lines(event)), partial(session.reopen, store, one, event)))
    return steps


def _controller(store: Leases, one: Run) -> str:
    alive = runs.lease_state(store, one) is LeaseState.ALIVE
    return "its controller, which lives and stops then" if alive else "nobody: no controller lives"


def _lines(event: RunReopened) -> Iterator[str]:
    """Yield what an event changes."""
    if not event.stages:
        yield "change limits, begin no stage again"
    for name in event.stages:
        without = ", without its checkpoints" if name in event.anew else ""
        yield f"begin stage {name} again{without}"
    for word in event.overrides:
        yield f"set {word}"


def drive(order: session.Order) -> Exit:
    """Drive the run here to its end."""
    finals: list[Run] = []
    out = tables.console()
    pools = session.startable(order.found, order.header.plan)
    with (
        LiveView(out, starting=session.starting(order.found)) as view,
        session.services(
            order.found, order.at, pools, keep=lambda: any(map(session.serves, finals))
        ) as addresses,
    ):
        out.print(f"\nRun [bold]{order.header.run}[/] goes on")
        finals.append(session.resume(order, addresses, view))
        launch.summarise(finals[-1], out.print)
    return of_state(finals[-1].state)


def _detach(order: session.Order) -> Exit:
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
