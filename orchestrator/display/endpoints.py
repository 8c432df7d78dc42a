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
    return [_row(life, revision, states, figures[revision.name]) for revision in shown]


def _row(
    life: EndpointLife, revision: Revision, states: EndpointStates, figures: TrafficFigures
) -> tuple[str, ...]:
    deployment, state = revision.deployment, states.state(life, revision)
    chip = deployment.pool.accelerator if deployment else None
    emulated = " (emulated)" if deployment and deployment.pool.emulated else ""
    share = life.shares.get(revision.number, 0)
    price = (
        0.0
        if state in {endpoints.RESTS, endpoints.DOWN}
        else deployment.price
        if deployment
        else None
    )
    return (
        life.name,
        revision.name,
        revision.pool,
        f"{chip.name}{emulated}" if chip else "outside",
        deployment.format if deployment else "-",
        f"{share} %{_beside(life, revision.number)}",
        str(len(states.urls(life, revision))) if deployment else "-",
        tables.dollars(price),
        f"{figures.requests:.0f}",
        f"{figures.errors:.0f}",
        f"{figures.to_first * 1e3:.0f} ms" if figures.first.count else "-",
        state,
    )


def _beside(life: EndpointLife, number: int) -> str:
    shadow = " shadow" if life.shadow == number else ""
    return f"{shadow} overflow" if life.overflow == number else shadow
