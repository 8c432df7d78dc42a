"""`orchestrator endpoints`: what is served, by which revision, on which pool."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from orchestrator import wiring
from orchestrator.cli import tables
from orchestrator.cli.exits import Exit
from orchestrator.core.endpoints import EndpointLife, Revision, RevisionState
from orchestrator.core.errors import ServingError
from orchestrator.core.rollout import NOTHING, Figures

COLUMNS = (
    "ENDPOINT",
    "REVISION",
    "POOL",
    "ACCELERATOR",
    "FORMAT",
    "#SHARE",
    "#REPLICAS",
    "$/H",
    "#REQUESTS",
    "#FAILED",
    "#TTFT",
    "STATUS",
)
RESTS = "resting"


def run(args: argparse.Namespace) -> Exit:
    """List the endpoints; revisions that are retired with `--all`."""
    lives = wiring.endpoint_store(wiring.home()).endpoints()
    if args.json:
        print(json.dumps([_json(life, everything=args.all) for life in lives.values()], indent=2))
        return Exit.SUCCEEDED
    show(lives, everything=args.all)
    return Exit.SUCCEEDED


def show(lives: Mapping[str, EndpointLife], *, everything: bool = False) -> None:
    """Print the endpoints as a table, and what to type next."""
    out = tables.console()
    rows = [row for life in lives.values() for row in _rows(life, everything=everything)]
    if not rows:
        out.print("No endpoint is served.")
        rows = []
    else:
        out.print(tables.table(COLUMNS, rows))
    gateway = wiring.find_gateway(wiring.home())
    if gateway:
        out.print(f"\nOpenAI base URL: {gateway}/v1, or {gateway}/ENDPOINT/v1", markup=False)
    commands = [
        ("To serve a model:", "orchestrator launch pipeline=r2"),
        ("To move one to another pool:", "orchestrator switch ENDPOINT pool=POOL"),
        ("To share its traffic:", "orchestrator traffic ENDPOINT r1=90 r2=10"),
        ("To go back:", "orchestrator rollback ENDPOINT"),
    ]
    out.print(tables.useful_commands(commands))


def _rows(life: EndpointLife, *, everything: bool) -> list[tuple[str, ...]]:
    shown = life.revisions.values() if everything else life.live
    figures = _figures(life.name)
    return [_row(life, one, figures.get(one.name, NOTHING)) for one in shown]


def _row(life: EndpointLife, one: Revision, told: Figures) -> tuple[str, ...]:
    made = one.deployment
    chip = made.pool.accelerator if made else None
    emulated = " (emulated)" if made and made.pool.emulated else ""
    share = life.shares.get(one.number, 0)
    urls, state = _urls(life.name, one.number), _state(life, one)
    price = 0.0 if state == RESTS else made.price if made else None
    return (
        life.name,
        one.name,
        one.pool,
        f"{chip.name}{emulated}" if chip else "outside",
        made.format if made else "-",
        f"{share} %{_beside(life, one.number)}",
        str(len(urls)) if made else "-",
        tables.dollars(price),
        f"{told.requests:.0f}",
        f"{told.errors:.0f}",
        f"{told.to_first * 1e3:.0f} ms" if told.firsts else "-",
        state,
    )


def _state(life: EndpointLife, one: Revision) -> str:
    """Return the state of a revision, or that its replicas are started when somebody asks."""
    made = one.deployment
    idle = made is not None and made.endpoint.idle is not None
    sleeps = idle and one.state is RevisionState.READY and not _urls(life.name, one.number)
    return RESTS if sleeps else str(one.state)


def _beside(life: EndpointLife, number: int) -> str:
    shadow = " shadow" if life.shadow == number else ""
    return f"{shadow} overflow" if life.overflow == number else shadow


def _urls(endpoint: str, number: int) -> tuple[str, ...]:
    return wiring.endpoint_store(wiring.home()).replicas().get((endpoint, number), ())


def _figures(endpoint: str) -> Mapping[str, Figures]:
    at = wiring.home()
    gateway = wiring.find_gateway(at)
    try:
        return wiring.traffic(gateway).figures(endpoint) if gateway else {}
    except ServingError:
        return {}


def _json(life: EndpointLife, *, everything: bool) -> dict[str, object]:
    shown = life.revisions.values() if everything else life.live
    figures = _figures(life.name)
    return {
        "endpoint": life.name,
        "shares": {f"r{number}": share for number, share in life.shares.items()},
        "shadow": None if life.shadow is None else f"r{life.shadow}",
        "overflow": None if life.overflow is None else f"r{life.overflow}",
        "revisions": [_revision(life, one, figures.get(one.name, NOTHING)) for one in shown],
        "moves": [
            {
                "at": move.at,
                "shares": {f"r{number}": share for number, share in move.shares.items()},
                "reason": move.reason,
            }
            for move in life.moves
        ],
    }


def _revision(life: EndpointLife, one: Revision, told: Figures) -> dict[str, object]:
    made = one.deployment
    return {
        "revision": one.name,
        "state": _state(life, one),
        "reason": one.reason,
        "pool": one.pool,
        "emulated": made.pool.emulated if made else False,
        "format": made.format if made else None,
        "run": made.run if made else None,
        "model": made.model.uri if made else None,
        "replicas": list(_urls(life.name, one.number)),
        "requests": told.requests,
        "errors": told.errors,
    }
