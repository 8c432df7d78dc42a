"""`orchestrator pools drain NAME` and `undrain NAME`: whether a pool takes work."""

from __future__ import annotations

import argparse

from orchestrator import wiring
from orchestrator.cli import composing
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.nearest import choices

UNEXPLAINED = "no reason given"


def run(args: argparse.Namespace) -> Exit:
    """Note that a pool of the fleet is to be emptied, or used again."""
    verb, *words = args.overrides
    if not words or "=" in words[0]:
        raise ConfigError([Problem(f"pools {verb}", "no pool is named", f"pools {verb} NAME")])
    name, *args.overrides = words
    fleet = composing.settings(args).fleet
    if name not in fleet.pools:
        hint = choices(name, fleet.pools, "pools of this fleet")
        raise NotFoundError(f"{name!r} is not a pool of fleet {fleet.name!r}; {hint}")
    store = wiring.event_store(wiring.home())
    if verb == "drain":
        store.drain(name, args.reason or UNEXPLAINED)
        print(f"Pool {name} takes no new attempts; those on it leave at their next checkpoint.")
        print(f"To use it again: orchestrator pools undrain {name}")
    else:
        store.undrain(name)
        print(f"Pool {name} takes attempts again.")
    return Exit.SUCCEEDED
