"""`orchestrator pools drain NAME` and `undrain NAME`: whether a pool takes work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli import composing
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.service.pools import drain, undrain

UNEXPLAINED = "no reason given"


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Note that a pool of the fleet is to be emptied, or used again."""
    verb, *words = args.overrides
    if not words or "=" in words[0]:
        raise ConfigError([Problem(f"pools {verb}", "no pool is named", f"pools {verb} NAME")])
    name, *args.overrides = words
    fleet = composing.source(args).settings().fleet
    if verb == "undrain":
        said = f"Pool {name} takes attempts again."
        return [Step.of(undrain(fleet, name), lambda _: print(said))]
    said = (
        f"Pool {name} takes no new attempts; those on it leave at their next checkpoint.\n"
        f"To use it again: orchestrator pools undrain {name}"
    )
    return [Step.of(drain(fleet, name, args.reason or UNEXPLAINED), lambda _: print(said))]
