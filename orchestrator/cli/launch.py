"""`orchestrator launch`: run a pipeline here, as a Ray job, or once for each of a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from orchestrator import session, wiring
from orchestrator.cli import composing, plan, runs, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.controller import attempt_requests
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState, StageState
from orchestrator.core.settings import Settings
from orchestrator.core.spec.plan import Plan
from orchestrator.core.text import visible

SHARED: Mapping[str, Callable[[Settings], object]] = {
    "cluster.kind": lambda found: found.cluster.kind,
    "cluster.address": lambda found: found.cluster.address,
    "gateway.host": lambda found: found.gateway.host,
    "gateway.port": lambda found: found.gateway.port,
    "cluster.object_store_mb": lambda found: found.cluster.object_store_mb,
    "tracking.enabled": lambda found: found.tracking.enabled,
    "tracking.uri": lambda found: found.tracking.uri,
}
WAY_OUT = "launch them one by one"


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Launch what the command line names; everything is planned before anything starts."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    earlier = _earlier(args.continues)
    planned = _planned(args)
    _check_together([found for found, _ in planned])
    if args.detach:
        check_detachable([found for found, _ in planned])
    if earlier:
        lines = (line for _, made in planned for line in attempt_requests.anew(made, earlier))
        _warn(dict.fromkeys(lines))
        args.continues = earlier.header.run  # whole, however it was typed
    if not args.dry_run:
        wiring.home()  # where that can't be, nothing is said either
    else:
        for _, made in planned:
            plan.show(made, tables.console().print)
    go = partial(_detach if args.detach else _launch, args, planned)
    names = [made.pipeline for _, made in planned]
    how = "hand over to a Ray job" if args.detach else "run"
    return [Step("\n".join(f"{how} pipeline {name}" for name in names), go)]


def _planned(args: argparse.Namespace) -> Sequence[tuple[Settings, Plan]]:
    """Compose and plan every run of the launch; refuse all when one can't run."""
    from orchestrator.adapters import hydra_config

    combinations = [args.overrides]
    if args.multirun:
        combinations = hydra_config.sweep(
            args.overrides, config_dir=args.config_dir, config_name=args.config_name
        )
    made: list[tuple[Settings, Plan]] = []
    problems: list[Problem] = []
    dropped: list[str] = []
    for overrides in combinations:
        try:
            found, whole = wiring.planned(overrides, args.config_dir, args.config_name)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        vetted = wiring.vetted(found, whole, unqualified=args.unqualified)
        problems.extend(vetted.problems)
        dropped.extend(vetted.dropped)
        made.append((found, vetted.plan))
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    _warn(dict.fromkeys(dropped))
    return made


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        tables.console().print(line, style="yellow", markup=False)


def _check_together(settings: Sequence[Settings]) -> None:
    """Refuse a sweep over what all its runs share. Raises `ConfigError`."""
    problems = [
        Problem(path, f"the runs of a sweep share it, but it is {' and '.join(values)}", WAY_OUT)
        for path, read in SHARED.items()
        if len(values := dict.fromkeys(repr(read(one)) for one in settings)) > 1
    ]
    if problems:
        raise ConfigError(problems)


def _launch(args: argparse.Namespace, planned: Sequence[tuple[Settings, Plan]]) -> Exit:
    """Run one after the other, on services that are started once, until one is cancelled."""
    out = tables.console()
    finals: list[Run] = []
    plan.show(planned[0][1], out.print)
    with (
        LiveView(out, starting=session.starting(planned[0][0])) as view,
        _services(planned, keep=lambda: any(map(session.serves, finals))) as addresses,
        session.Interrupts() as interrupts,
    ):
        for found, made in planned:
            if interrupts.reason or any(run.state is RunState.CANCELLED for run in finals):
                break
            if finals:
                plan.show(made, out.print)
            order = _order(args, found, made)
            out.print(f"\nRun [bold]{order.header.run}[/]")
            finals.append(session.launch(order, addresses, view))
            summarise(finals[-1], out.print)
    left = len(planned) - len(finals)
    if left:
        print(f"{left} more of the sweep were not started.", file=sys.stderr)
        return Exit.CANCELLED
    return max(of_state(final.state) for final in finals)


def _detach(args: argparse.Namespace, planned: Sequence[tuple[Settings, Plan]]) -> Exit:
    """Hand each run to a Ray job, and leave the services up."""
    out = tables.console()
    with _services(planned, keep=lambda: True):
        for found, made in planned:
            order = _order(args, found, made)
            plan.show(made, out.print)
            store = wiring.event_store(order.at)
            store.create(order.header, order.header.created)
            with session.begun(store, order.header):
                hand_over(order)
    return Exit.SUCCEEDED


def check_detachable(settings: Sequence[Settings]) -> None:
    """Refuse to detach what runs in this process. Raises `ConfigError`."""
    if any(found.cluster.kind == "local" for found in settings):
        what = "'local' runs in this process and can't be detached"
        raise ConfigError([Problem("cluster.kind", what, "use cluster=ray")])


def hand_over(order: session.Order) -> None:
    """Hand a run of the event store to a Ray job, and say so once that has it."""
    name, out = order.header.run, tables.console()
    chosen = {"--no-cache": not order.reuse, "--take-over": order.by_force}
    flags = [flag for flag, given in chosen.items() if given]
    store = wiring.event_store(order.at)
    before = runs.load(store, order.header)
    job = wiring.submit(order.found, order.at, name, flags)
    session.hand_over(job, store, before, wiring.clock())
    out.print(f"\nRun [bold]{name}[/] goes on by itself.")
    commands = [
        ("To see how it goes:", f"orchestrator status {name}"),
        ("To follow its logs:", f"orchestrator logs -f {name}"),
        ("To end it:", f"orchestrator cancel {name}"),
    ]
    out.print(tables.useful_commands(commands))


def _order(args: argparse.Namespace, found: Settings, made: Plan) -> session.Order:
    at = wiring.home()
    header = session.new_header(
        found, made, at=at, continues=args.continues or "", flags=composing.chosen(args)
    )
    return session.Order(found=found, header=header, at=at, reuse=not args.no_cache)


def _earlier(run: str | None) -> Run | None:
    """Return the run to continue, if one is named. Raises `NotFoundError`, `ConfigError`."""
    if run is None:
        return None
    store = wiring.event_store(wiring.home())
    one = runs.load(store, store.header(run))
    if not one.done and runs.lease_state(store, one) is LeaseState.ALIVE:
        what = f"run {one.header.run!r} still goes on, and saves checkpoints"
        hint = f"end it first: orchestrator cancel {one.header.run}"
        raise ConfigError([Problem("--continue", what, hint)])
    return one


def _services(
    planned: Sequence[tuple[Settings, Plan]], *, keep: Callable[[], bool]
) -> AbstractContextManager[session.Addresses]:
    pools = {
        name: pool
        for found, made in planned
        for name, pool in session.startable(found, made).items()
    }
    serving = any(session.needs_gateway(found) for found, _ in planned)
    return session.services(planned[0][0], wiring.home(), pools, keep=keep, gateway=serving)


def summarise(final: Run, write: Callable[..., None]) -> None:
    """Write how a run ended, and what to type next."""
    took = tables.duration(final.seconds(final.ended or 0.0))
    write(f"\nRun [bold]{final.header.run}[/] {final.state} after {took}.")
    if final.reason:
        print(visible(final.reason), file=sys.stderr)
    again = {RunState.FAILED: "To go on once it is mended:", RunState.PAUSED: "To go on:"}
    served = [
        stage.planned.stage.endpoint.name
        for stage in final.stages.values()
        if stage.planned.stage.endpoint and stage.state is StageState.SUCCEEDED
    ]
    lines = [("To ask the model:", f'orchestrator ask -e {name} "..."') for name in served]
    lines += [
        ("To see the stages:", f"orchestrator status {final.header.run}"),
        ("To read the logs:", f"orchestrator logs {final.header.run}"),
        ("To review in MLflow:", "orchestrator ui"),
    ]
    if final.state in again:
        lines.insert(0, (again[final.state], f"orchestrator resume {final.header.run}"))
    if served:
        lines.append(("To stop serving:", "orchestrator down"))
    write(tables.useful_commands(lines))
