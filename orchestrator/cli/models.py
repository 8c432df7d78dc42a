"""`orchestrator models`: the versions of the models that endpoints serve, by the registry."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from dataclasses import asdict

from orchestrator import wiring
from orchestrator.cli import tables
from orchestrator.cli.exits import Exit
from orchestrator.core.trust.registry import ModelVersion

COLUMNS = (
    "MODEL",
    "VERSION",
    "ALIASES",
    "FORMAT",
    "POOL",
    "ACCELERATOR",
    "PARITY",
    "#KL",
    "#TOP-1",
    "RUN",
    "CREATED",
)


def run(args: argparse.Namespace) -> Exit:
    """List the versions of all models, or of one, newest first."""
    with closing(wiring.registry(wiring.home())) as registry:
        found = registry.versions(args.model or "")
    if args.json:
        print(tables.as_json([{**asdict(one), "parity": one.parity} for one in found]))
        return Exit.SUCCEEDED
    out = tables.console()
    if found:
        out.print(tables.table(COLUMNS, map(_row, found)))
    else:
        out.print("No model is registered.")
    commands = [
        ("To register one:", "orchestrator launch pipeline=r2"),
        ("To make one the champion:", "orchestrator promote MODEL VERSION"),
        ("To see where one comes from:", "orchestrator ui"),
    ]
    out.print(tables.useful_commands(commands))
    return Exit.SUCCEEDED


def _row(one: ModelVersion) -> tuple[str, ...]:
    tags = one.tags
    emulated = " (emulated)" if tags.get("emulated") == "true" else ""
    return (
        one.name,
        str(one.number),
        ", ".join(one.aliases) or "-",
        tags.get("format") or "-",
        tags.get("pool") or "-",
        f"{tags.get('accelerator') or '-'}{emulated}",
        one.parity,
        _figure(tags.get("parity.kl_mean")),
        _figure(tags.get("parity.top1")),
        tags.get("run") or "-",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created)),
    )


def _figure(text: str | None) -> str:
    return f"{float(text):.3g}" if text else "-"
