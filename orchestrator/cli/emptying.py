"""`orchestrator pools drain NAME` and `undrain NAME`: whether a pool, or a node, takes work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from orchestrator.cli import composing
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.settings import Settings
from orchestrator.service.pools import PoolOrNode, drain, others_live, place_of, undrain

UNEXPLAINED = "no reason given"


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Note that a pool of the fleet or a node of one is to be emptied, or used again."""
    verb, *words = args.overrides
    if not words or "=" in words[0]:
        raise ConfigError([Problem(f"pools {verb}", "no pool is named", f"pools {verb} NAME")])
    if args.reason is not None and not args.reason.strip():
        raise ConfigError([Problem("--reason", "it is empty", "say why, or leave it out")])
    name, *args.overrides = words
    settings = composing.settings(args)
    place = _place(settings, name)
    if verb == "undrain":
        return [Step.of(undrain(place), partial(_tell_used, place))]
    said = (
        f"{_sentence(place)} takes no new attempts; those on it leave at their next "
        f"checkpoint.\n{_away(settings, place)}To use it again: orchestrator pools undrain {name}"
    )
    return [Step.of(drain(place, args.reason or UNEXPLAINED), lambda _: print(said))]


def _place(settings: Settings, name: str) -> PoolOrNode:
    """Return the pool or the node that is named as POOL, NODE or POOL/NODE."""
    pool, _, node = name.partition("/")
    return place_of(settings, pool, node) if node else place_of(settings, name)


def _away(settings: Settings, place: PoolOrNode) -> str:
    """Return a line that says of a node that it does not live now; empty where it does."""
    live = others_live(settings, place)
    if live is None:
        return ""
    return f"It is not there now; of that pool there live: {', '.join(live) or 'none'}.\n"


def _tell_used(place: PoolOrNode, kept: bool) -> None:  # noqa: FBT001 - what a change returns
    if kept:
        print(f"{_sentence(place)} takes attempts again.")
        return
    kinds = "neither drained nor in quarantine" if place.node else "not drained"
    print(f"{_sentence(place)} was {kinds}: it takes attempts.")


def _sentence(place: PoolOrNode) -> str:
    """Return the beginning of a sentence about it."""
    words = str(place)
    return words[0].upper() + words[1:]
