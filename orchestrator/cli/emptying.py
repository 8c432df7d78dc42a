"""`orchestrator pools drain NAME` and `undrain NAME`: whether a pool takes work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from orchestrator import wiring
from orchestrator.cli import composing
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.nearest import choices
from orchestrator.core.spec.hardware import name_in_fleet

UNEXPLAINED = "no reason given"


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Note that a pool of the fleet is to be emptied, or used again."""
    verb, *words = args.overrides
    if not words or "=" in words[0]:
        raise ConfigError([Problem(f"pools {verb}", "no pool is named", f"pools {verb} NAME")])
    name, *args.overrides = words
    fleet = composing.settings(args).fleet
    if name not in fleet.pools:
        hint = choices(name, fleet.pools, "pools of this fleet")
        raise NotFoundError(f"{name!r} is not a pool of fleet {fleet.name!r}; {hint}")
    if verb == "drain":
        return [
            Step(
                f"empty pool {name}", partial(_drain, fleet.name, name, args.reason or UNEXPLAINED)
            )
        ]
    return [Step(f"use pool {name} again", partial(_undrain, fleet.name, name))]


def _drain(fleet: str, name: str, reason: str) -> None:
    wiring.event_store(wiring.home()).drain(name_in_fleet(fleet, name), reason)
    print(f"Pool {name} takes no new attempts; those on it leave at their next checkpoint.")
    print(f"To use it again: orchestrator pools undrain {name}")


def _undrain(fleet: str, name: str) -> None:
    store = wiring.event_store(wiring.home())
    for named in (name, name_in_fleet(fleet, name)):
        store.undrain(named)
    print(f"Pool {name} takes attempts again.")
