"""`orchestrator pools drain NAME` and `undrain NAME`: whether a pool, or a node, takes work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli import composing
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.settings import Settings
from orchestrator.service.pools import PoolOrNode, drain, place_of, undrain

UNEXPLAINED = "no reason given"


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Note that a pool of the fleet or a node of one is to be emptied, or used again."""
    verb, *words = args.overrides
    if not words or "=" in words[0]:
        raise ConfigError([Problem(f"pools {verb}", "no pool is named", f"pools {verb} NAME")])
    name, *args.overrides = words
    place = _place(composing.settings(args), name)
    if verb == "undrain":
        said = f"{_sentence(place)} takes attempts again."
        return [Step.of(undrain(place), lambda _: print(said))]
    said = (
        f"{_sentence(place)} takes no new attempts; those on it leave at their next "
        f"checkpoint.\nTo use it again: orchestrator pools undrain {name}"
    )
    return [Step.of(drain(place, args.reason or UNEXPLAINED), lambda _: print(said))]


def _place(settings: Settings, name: str) -> PoolOrNode:
    """Return the pool or the node that is named as POOL, NODE or POOL/NODE."""
    pool, _, node = name.partition("/")
    return place_of(settings, pool, node) if node else place_of(settings, name)


def _sentence(place: PoolOrNode) -> str:
    """Return the beginning of a sentence about it."""
    words = str(place)
    return words[0].upper() + words[1:]
