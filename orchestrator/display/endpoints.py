"""Endpoints as a table: what is served, by which revision, on which pool."""

from __future__ import annotations

from rich.table import Table

from orchestrator.core.endpoints.life import EndpointLife, Revision
from orchestrator.core.endpoints.promotion import TrafficFigures
from orchestrator.display import tables
from orchestrator.service import endpoints
from orchestrator.service.endpoints import EndpointStates

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


def table(states: EndpointStates, *, everything: bool = False) -> Table:
    """Return the table of endpoints; of retired revisions too where it is to show `everything`."""
    lives = states.lives.values()
    rows = (row for life in lives for row in _rows(life, states, everything=everything))
    return tables.table(COLUMNS, rows)


def _rows(
    life: EndpointLife, states: EndpointStates, *, everything: bool
) -> list[tuple[str, ...]]:
    shown = life.revisions.values() if everything else life.live
    figures = states.figures(life)
    return [_row(life, one, states, figures[one.name]) for one in shown]


def _row(
    life: EndpointLife, one: Revision, states: EndpointStates, figures: TrafficFigures
) -> tuple[str, ...]:
    made, state = one.deployment, states.state(life, one)
    chip = made.pool.accelerator if made else None
    emulated = " (emulated)" if made and made.pool.emulated else ""
    share = life.shares.get(one.number, 0)
    price = 0.0 if state in {endpoints.RESTS, endpoints.DOWN} else made.price if made else None
    return (
        life.name,
        one.name,
        one.pool,
        f"{chip.name}{emulated}" if chip else "outside",
        made.format if made else "-",
        f"{share} %{_beside(life, one.number)}",
        str(len(states.urls(life, one))) if made else "-",
        tables.dollars(price),
        f"{figures.requests:.0f}",
        f"{figures.errors:.0f}",
        f"{figures.to_first * 1e3:.0f} ms" if figures.first.count else "-",
        state,
    )


def _beside(life: EndpointLife, number: int) -> str:
    shadow = " shadow" if life.shadow == number else ""
    return f"{shadow} overflow" if life.overflow == number else shadow
