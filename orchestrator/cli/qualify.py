"""`orchestrator qualify POOL`: find out what a pool can do, and keep the verdict."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from orchestrator.cli import composing
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.runs.run import Run
from orchestrator.core.spec.hardware import Role
from orchestrator.core.trust.qualification import Standing, Verdict
from orchestrator.display import tables
from orchestrator.service.qualifying import PIPELINE, Depth, qualify

COLUMNS = ("POOL", "ROLE", "VERDICT", "REASON")


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Qualify the pool that the command line names."""
    name, overrides = _named(args.overrides)
    args.overrides = [PIPELINE, *overrides]
    if composing.shown(args):
        return Exit.SUCCEEDED
    args.overrides = overrides
    asked = qualify(
        composing.source(args),
        name,
        role=Role(args.role) if args.role else None,
        depth=Depth(quick=args.quick, soak=args.soak),
        model_of=args.model_of,
    )

    def do() -> Exit:
        with LiveView.of(asked.settings) as view:
            final, verdicts = asked.run(view)
        return show(final, verdicts)

    return [Step(asked.what, do)]


def show(final: Run, verdicts: Sequence[Verdict]) -> Exit:
    """Print verdicts with all their reasons, and return how the checks ended."""
    if not verdicts:
        print("No verdict: what ended the run says nothing of the pool.")
        return of_state(final.state)
    rows = (row for verdict in verdicts for row in _rows(verdict))
    out = tables.console()
    out.print()
    out.print(tables.table(COLUMNS, rows))
    refused = any(verdict.standing is Standing.REFUSED for verdict in verdicts)
    return Exit.FAILED if refused else Exit.SUCCEEDED


def _rows(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    first, *others = verdict.reasons or ("",)
    yield verdict.pool, str(verdict.role), str(verdict.standing), first
    yield from (("", "", "", reason) for reason in others)


def _named(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the pool among `words`, and the overrides."""
    names = [word for word in words if "=" not in word and not word.startswith(("~", "+"))]
    if len(names) != 1:
        what = f"{len(names)} pools are named" if names else "no pool is named"
        raise ConfigError([Problem("qualify", what, "write qualify POOL")])
    return names[0], [word for word in words if word != names[0]]
