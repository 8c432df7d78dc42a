"""`orchestrator launch`: run a pipeline here, as a Ray job, or once for each of a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from orchestrator import session, wiring
from orchestrator.cli import composing, plan, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.core.errors import ConfigError, PlanError, Problem
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.core.settings import Settings
from orchestrator.core.state import StageState


def run(args: argparse.Namespace) -> Exit:
    """Launch what the command line names; everything is planned before anything starts."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    planned = _planned(args)
    codes = [_launch(args, found, made) for found, made in planned]
    return max(codes)


def _planned(args: argparse.Namespace) -> list[tuple[Settings, Plan]]:
    """Compose and plan every run of the launch; refuse all when one can't run."""
    from orchestrator.adapters import hydra_config

    combinations = hydra_config.sweep(args.overrides) if args.multirun else [args.overrides]
    made: list[tuple[Settings, Plan]] = []
    problems: list[Problem] = []
    for overrides in combinations:
        try:
            found = wiring.settings(overrides, args.config_dir, args.config_name)
            made.append((found, wiring.plan(found)))
        except (ConfigError, PlanError) as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return made


def _launch(args: argparse.Namespace, found: Settings, made: Plan) -> Exit:
    at = wiring.home()
    header = session.new_header(found, made)
    out = tables.console()
    plan.show(made, out.print)
    out.print(f"\nRun [bold]{header.run}[/]")
    if args.detach:
        return _detach(args, found, made)
    with LiveView(out) as view:
        final = session.launch(found, header, at, view, reuse=not args.no_cache)
    summarise(final, out.print)
    return of_state(final.state)


def _detach(args: argparse.Namespace, found: Settings, made: Plan) -> Exit:
    at = wiring.home()
    if found.cluster.kind == "local":
        what = "'local' runs in this process and can't be detached"
        raise ConfigError([Problem("cluster.kind", what, "use cluster=ray")])
    header = session.new_header(found, made)
    with session.services(found, at, made.pools, keep=lambda: True):
        wiring.event_store(at).create(header, header.created)
        wiring.submit(found, at, header.run, reuse=not args.no_cache)
    commands = [
        ("To see how it goes:", f"orchestrator status {header.run}"),
        ("To follow its logs:", f"orchestrator logs -f {header.run}"),
        ("To end it:", f"orchestrator cancel {header.run}"),
    ]
    tables.console().print(tables.useful_commands(commands))
    return Exit.SUCCEEDED


def summarise(final: Run, write: Callable[..., None]) -> None:
    """Write how a run ended, and what to type next."""
    took = tables.duration((final.ended or 0.0) - (final.started or 0.0))
    write(f"\nRun [bold]{final.header.run}[/] {final.state} after {took}.")
    if final.reason:
        print(f"{final.reason}", file=sys.stderr)
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
    if served:
        lines.append(("To stop serving:", "orchestrator down"))
    write(tables.useful_commands(lines))
