"""`orchestrator cost`: what endpoints were used for, and what they held, by key, pool and day."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from orchestrator.cli.exits import Exit
from orchestrator.core.endpoints.metering import Occupancy, Usage
from orchestrator.core.prices import SECONDS_PER_HOUR
from orchestrator.display import tables
from orchestrator.service.cost import cost

SUMS = ("#REQUESTS", "#PROMPT TOKENS", "#ANSWER TOKENS", "COST")
HELD = ("ENDPOINT", "POOL", "DAY", "#DEVICE-HOURS", "COST")


def run(args: argparse.Namespace) -> Exit:
    """Print the sums of the last days."""
    by = tuple(args.by.split(","))
    sums = cost(by, args.days)
    used, occupied = sums.used, sums.occupied
    if args.json:
        shown = {"used": [asdict(usage) for usage in used], "held": [asdict(h) for h in occupied]}
        print(tables.as_json(shown))
        return Exit.SUCCEEDED
    _print(used, occupied, by)
    return Exit.SUCCEEDED


def _print(used: Sequence[Usage], occupied: Sequence[Occupancy], by: Sequence[str]) -> None:
    out = tables.console()
    if not used and not occupied:
        out.print("No endpoint was used or held in these days.")
        return
    out.print(tables.table((*(name.upper() for name in by), *SUMS), [_row(u, by) for u in used]))
    out.print()
    out.print("Held by replicas, asked or not:")
    out.print(tables.table(HELD, [_occupancy_row(part) for part in occupied]))


def _row(usage: Usage, by: Sequence[str]) -> tuple[str, ...]:
    places = (getattr(usage, name) or "-" for name in by)
    counts = (usage.requests, usage.prompt_tokens, usage.completion_tokens)
    return (*places, *(f"{count:,}" for count in counts), tables.dollars(usage.cost))


def _occupancy_row(part: Occupancy) -> tuple[str, ...]:
    hours = f"{part.device_seconds / SECONDS_PER_HOUR:.2f}"
    return (part.endpoint, part.pool, part.day, hours, tables.dollars(part.cost))
