"""`orchestrator traffic ENDPOINT r1=90 r2=10`: share the traffic between revisions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial

from orchestrator import wiring
from orchestrator.cli import endpoints
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints import EndpointLife, TrafficMoved, follow
from orchestrator.core.errors import ConfigError, Problem, TransitionError

_SHARE = re.compile(r"r(\d+)=(\d+)")
_BESIDE = re.compile(r"(shadow|overflow)=r(\d+)")


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Move the traffic of an endpoint."""
    words = [word for argument in args.shares for word in argument.split(",") if word]
    shares = {int(m[1]): int(m[2]) for word in words if (m := _SHARE.fullmatch(word))}
    beside = {m[1]: int(m[2]) for word in words if (m := _BESIDE.fullmatch(word))}
    if len(shares) + len(beside) != len(words):
        how = "write r1=90 r2=10; shadow=r3 sends copies, overflow=r4 what finds no room"
        raise ConfigError([Problem("traffic", f"{' '.join(words)!r} are no shares", how)])
    store = wiring.endpoint_store(wiring.home())
    life = store.endpoint(args.endpoint)
    moved = TrafficMoved(shares or life.shares, f"by {wiring.user()}", **beside)
    try:
        follow(life, moved, wiring.clock().now())
    except TransitionError as error:
        there = ", ".join(f"{r.name} ({r.state})" for r in life.live) or "none"
        raise TransitionError(f"{error}; revisions: {there}") from None
    told = [f"r{number} {share} %" for number, share in moved.shares.items()]
    told += [f"{what} r{number}" for what, number in beside.items()]
    what = f"share the traffic of {life.name}: {', '.join(told)}"
    return [Step(what, partial(_move, life, moved))]


def _move(life: EndpointLife, moved: TrafficMoved) -> None:
    store = wiring.endpoint_store(wiring.home())
    store.follow(life, [moved], wiring.clock().now())
    wiring.follow_traffic(wiring.home(), store.endpoint(life.name))
    endpoints.show({life.name: store.endpoint(life.name)})
