"""`orchestrator models`: the versions of the models that endpoints serve, by the registry."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from orchestrator.cli.exits import Exit
from orchestrator.core.trust.model_versions import ModelVersion
from orchestrator.display import tables
from orchestrator.service.models import versions

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
    listed = versions(args.model or "")
    if args.json:
        print(
            tables.as_json([{**asdict(version), "parity": version.parity} for version in listed])
        )
        return Exit.SUCCEEDED
    out = tables.console()
    if listed:
        out.print(tables.table(COLUMNS, map(_row, listed)))
    else:
        out.print("No model is registered.")
    commands = [
        ("To register one:", "orchestrator launch pipeline=r2"),
        ("To make one the champion:", "orchestrator promote MODEL VERSION"),
        ("To see where one comes from:", "orchestrator ui"),
    ]
    out.print(tables.useful_commands(commands))
    return Exit.SUCCEEDED


def _row(version: ModelVersion) -> tuple[str, ...]:
    tags = version.tags
    emulated = " (emulated)" if tags.get("emulated") == "true" else ""
    return (
        version.name,
        str(version.number),
        ", ".join(version.aliases) or "-",
        tags.get("format") or "-",
        tags.get("pool") or "-",
        f"{tags.get('accelerator') or '-'}{emulated}",
        version.parity,
        _figure(tags.get("parity.kl_mean")),
        _figure(tags.get("parity.top1")),
        tags.get("run") or "-",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created)),
    )


def _figure(text: str | None) -> str:
    return f"{float(text):.3g}" if text else "-"
