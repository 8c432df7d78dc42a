"""`orchestrator endpoints`: what is served, by which revision, on which pool."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator import wiring
from orchestrator.cli import tables
from orchestrator.cli.exits import Exit
from orchestrator.core.endpoints.life import EndpointLife, Revision, RevisionState
from orchestrator.core.endpoints.promotion import NOTHING, TrafficFigures
from orchestrator.core.errors import NotFoundError, ServingError

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
RESTS = "resting"  # until somebody asks
STARTS = str(RevisionState.STARTING)
DOWN = "down"
BROKEN = "broken"  # it is deployed anew, again and again
WAY_OUT = "`orchestrator up` brings it back"


def not_served(name: str, lives: Mapping[str, EndpointLife]) -> NotFoundError:
    """Return what is wrong with an endpoint that has no traffic."""
    served = ", ".join(n for n, life in lives.items() if life.shares) or "none"
    return NotFoundError(f"no endpoint {name!r} is served; served: {served}")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of the endpoints beside what their events tell.

    `replicas` are those that were last known to answer; `outage` says what is not running, and
    `troubles` why revisions have no replica.
    """

    replicas: Mapping[tuple[str, int], tuple[str, ...]]
    outage: wiring.Outage
    troubles: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def trouble(self, life: EndpointLife, one: Revision) -> str:
        """Return why a live revision has no replica, where that is known."""
        live = one.state is not RevisionState.RETIRED and not self.urls(life, one)
        return self.troubles.get((life.name, one.number), "") if live else ""

    def urls(self, life: EndpointLife, one: Revision) -> tuple[str, ...]:
        """Return the replicas of a revision that can answer."""
        return () if self.down(one) else self.replicas.get((life.name, one.number), ())

    def down(self, one: Revision) -> str:
        """Return why a revision of ours can't answer; empty where nothing is in the way."""
        return (
            self.outage.ours if one.deployment and one.state is not RevisionState.RETIRED else ""
        )

    def state(self, life: EndpointLife, one: Revision) -> str:
        """Return the state of a revision; one that is ready is no more while none answers."""
        made = one.deployment
        if self.down(one):
            return DOWN
        if self.trouble(life, one):
            return BROKEN
        if made is None or one.state is not RevisionState.READY or self.urls(life, one):
            return str(one.state)
        return STARTS if made.endpoint.idle is None else RESTS

    def unanswered(self, life: EndpointLife) -> str:
        """Return why an endpoint that has traffic does not answer; empty where it may."""
        if not life.shares:
            return ""
        parts = {
            self.down(life.revisions[number]) for number, share in life.shares.items() if share
        }
        return self.outage.all or ("" if "" in parts else next(iter(parts), ""))


def run(args: argparse.Namespace) -> Exit:
    """List the endpoints; revisions that are retired with `--all`."""
    lives = wiring.endpoint_store(wiring.home()).endpoints()
    seen = _seen()
    if args.json:
        told = [_json(life, seen, everything=args.all) for life in lives.values()]
        print(tables.as_json(told))
    else:
        show(lives, everything=args.all)
    down = any(seen.unanswered(life) for life in lives.values())
    return Exit.ERROR if down else Exit.SUCCEEDED


def _seen() -> Seen:
    at = wiring.home()
    store = wiring.endpoint_store(at)
    return Seen(store.replicas(), wiring.outage(at), store.troubles())


def show(lives: Mapping[str, EndpointLife], *, everything: bool = False) -> None:
    """Print the endpoints as a table, and what to type next."""
    out, seen = tables.console(), _seen()
    rows = [row for life in lives.values() for row in _rows(life, seen, everything=everything)]
    if rows:
        out.print(tables.table(COLUMNS, rows))
    else:
        out.print("No endpoint is served.")
    try:
        gateway = wiring.gateway_url(wiring.home())
        out.print(f"\nOpenAI base URL: {gateway}/v1, or {gateway}/ENDPOINT/v1", markup=False)
    except ServingError as error:
        if rows:
            out.print(f"\nNo OpenAI base URL: {error}", markup=False)
    for why in dict.fromkeys(filter(None, map(seen.unanswered, lives.values()))):
        out.print(f"\n[red]{DOWN}[/]: {why}; {WAY_OUT}")
    for life in lives.values():
        for one in life.live:
            if seen.trouble(life, one):
                out.print(f"\n[red]{BROKEN}[/]: {life.name}.{one.name}: ", end="")
                out.print(seen.trouble(life, one), markup=False)
    commands = [
        ("To serve a model:", "orchestrator launch pipeline=r2"),
        ("To move one to another pool:", "orchestrator switch ENDPOINT pool=POOL"),
        ("To share its traffic:", "orchestrator traffic ENDPOINT r1=90 r2=10"),
        ("To go back:", "orchestrator rollback ENDPOINT"),
    ]
    out.print(tables.useful_commands(commands))


def _rows(life: EndpointLife, seen: Seen, *, everything: bool) -> list[tuple[str, ...]]:
    shown = life.revisions.values() if everything else life.live
    figures = _figures(life.name)
    return [_row(life, one, seen, figures.get(one.name, NOTHING)) for one in shown]


def _row(life: EndpointLife, one: Revision, seen: Seen, told: TrafficFigures) -> tuple[str, ...]:
    made, state = one.deployment, seen.state(life, one)
    chip = made.pool.accelerator if made else None
    emulated = " (emulated)" if made and made.pool.emulated else ""
    share = life.shares.get(one.number, 0)
    price = 0.0 if state in {RESTS, DOWN} else made.price if made else None
    return (
        life.name,
        one.name,
        one.pool,
        f"{chip.name}{emulated}" if chip else "outside",
        made.format if made else "-",
        f"{share} %{_beside(life, one.number)}",
        str(len(seen.urls(life, one))) if made else "-",
        tables.dollars(price),
        f"{told.requests:.0f}",
        f"{told.errors:.0f}",
        f"{told.to_first * 1e3:.0f} ms" if told.first.count else "-",
        state,
    )


def _beside(life: EndpointLife, number: int) -> str:
    shadow = " shadow" if life.shadow == number else ""
    return f"{shadow} overflow" if life.overflow == number else shadow


def _figures(endpoint: str) -> Mapping[str, TrafficFigures]:
    try:
        return wiring.traffic(wiring.home()).figures(endpoint)
    except ServingError:
        return {}


def _json(life: EndpointLife, seen: Seen, *, everything: bool) -> dict[str, object]:
    shown = life.revisions.values() if everything else life.live
    figures = _figures(life.name)
    down = seen.unanswered(life)
    return {
        "endpoint": life.name,
        "down": f"{down}; {WAY_OUT}" if down else None,
        "shares": {f"r{number}": share for number, share in life.shares.items()},
        "shadow": None if life.shadow is None else f"r{life.shadow}",
        "overflow": None if life.overflow is None else f"r{life.overflow}",
        "revisions": [_revision(life, one, seen, figures.get(one.name, NOTHING)) for one in shown],
        "moves": [
            {
                "at": move.at,
                "shares": {f"r{number}": share for number, share in move.shares.items()},
                "reason": move.reason,
            }
            for move in life.moves
        ],
    }


def _revision(
    life: EndpointLife, one: Revision, seen: Seen, told: TrafficFigures
) -> dict[str, object]:
    made = one.deployment
    return {
        "revision": one.name,
        "state": seen.state(life, one),
        "reason": seen.down(one) or seen.trouble(life, one) or one.reason,
        "pool": one.pool,
        "emulated": made.pool.emulated if made else False,
        "format": made.format if made else None,
        "run": made.run if made else None,
        "model": made.model.uri if made else None,
        "replicas": list(seen.urls(life, one)),
        "requests": told.requests,
        "errors": told.errors,
    }
