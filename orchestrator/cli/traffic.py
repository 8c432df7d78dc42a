"""`orchestrator traffic ENDPOINT r1=90 r2=10`: share the traffic between revisions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from orchestrator import wiring
from orchestrator.cli import endpoints
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints.life import (
    EndpointLife,
    OverflowSet,
    ShadowSet,
    SharesMoved,
    TrafficEvent,
    follow,
)
from orchestrator.core.errors import ConfigError, Problem, TransitionError

_SHARE = re.compile(r"r(\d+)=(\d+)")
_BESIDE = re.compile(r"(shadow|overflow)=(?:r(\d+)|none)")
_EVENTS: Mapping[str, Callable[[int | None, str], TrafficEvent]] = {
    "shadow": ShadowSet,
    "overflow": OverflowSet,
}


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Move the traffic of an endpoint."""
    words = [word for argument in args.shares for word in argument.split(",") if word]
    shares = {int(m[1]): int(m[2]) for word in words if (m := _SHARE.fullmatch(word))}
    beside = {
        m[1]: int(m[2]) if m[2] else None for word in words if (m := _BESIDE.fullmatch(word))
    }
    if len(shares) + len(beside) != len(words):
        how = (
            "write r1=90 r2=10; shadow=r3 sends copies, overflow=r4 what finds no room, "
            "and =none ends either"
        )
        raise ConfigError([Problem("traffic", f"{' '.join(words)!r} are no shares", how)])
    store = wiring.endpoint_store(wiring.home())
    life = store.endpoint(args.endpoint)
    reason = f"by {wiring.user()}"
    events: list[TrafficEvent] = [SharesMoved(shares, reason)] if shares else []
    events += [_EVENTS[what](number, reason) for what, number in beside.items()]
    moved = life
    try:
        for event in events:
            moved = follow(moved, event, wiring.clock().now())
    except TransitionError as error:
        there = ", ".join(f"{r.name} ({r.state})" for r in life.live) or "none"
        raise TransitionError(f"{error}; revisions: {there}") from None
    told = [f"r{number} {share} %" for number, share in moved.shares.items()]
    told += [f"{what} {'none' if n is None else f'r{n}'}" for what, n in beside.items()]
    what = f"share the traffic of {life.name}: {', '.join(told)}"
    return [Step(what, partial(_move, life, events))]


def _move(life: EndpointLife, events: Sequence[TrafficEvent]) -> None:
    store = wiring.endpoint_store(wiring.home())
    store.follow(life, events, wiring.clock().now())
    wiring.follow_traffic(wiring.home(), store.endpoint(life.name))
    endpoints.show({life.name: store.endpoint(life.name)})
