"""`orchestrator endpoints`: what is served, by which revision, on which pool."""

from __future__ import annotations

import argparse

from orchestrator.cli.exits import Exit
from orchestrator.core.endpoints.life import EndpointLife, Revision
from orchestrator.core.endpoints.promotion import TrafficFigures
from orchestrator.core.errors import ServingError
from orchestrator.display import endpoints as display
from orchestrator.display import tables
from orchestrator.service import endpoints
from orchestrator.service.endpoints import EndpointStates


def run(args: argparse.Namespace) -> Exit:
    """List the endpoints; revisions that are retired with `--all`."""
    states = endpoints.endpoints()
    if args.json:
        lives = states.lives.values()
        print(tables.as_json([_json(life, states, everything=args.all) for life in lives]))
    else:
        show(states, everything=args.all)
    down = any(map(states.unanswered, states.lives.values()))
    return Exit.ERROR if down else Exit.SUCCEEDED


def show(states: EndpointStates, *, everything: bool = False) -> None:
    """Print the endpoints as a table, and what to type next."""
    out, lives = tables.console(), states.lives.values()
    shown = display.table(states, everything=everything)
    if shown.rows:
        out.print(shown)
    else:
        out.print("No endpoint is served.")
    try:
        gateway = endpoints.gateway_url()
        out.print(f"\nOpenAI base URL: {gateway}/v1, or {gateway}/ENDPOINT/v1", markup=False)
    except ServingError as error:
        if shown.rows:
            out.print(f"\nNo OpenAI base URL: {error}", markup=False)
    for why in dict.fromkeys(filter(None, map(states.unanswered, lives))):
        out.print(f"\n[red]{endpoints.DOWN}[/]: {why}; {_way_out()}")
    for life in lives:
        for revision in life.live:
            if states.trouble(life, revision):
                out.print(f"\n[red]{endpoints.BROKEN}[/]: {life.name}.{revision.name}: ", end="")
                out.print(states.trouble(life, revision), markup=False)
    commands = [
        ("To serve a model:", "orchestrator launch pipeline=r2"),
        ("To move one to another pool:", "orchestrator switch ENDPOINT pool=POOL"),
        ("To share its traffic:", "orchestrator traffic ENDPOINT r1=90 r2=10"),
        ("To go back:", "orchestrator rollback ENDPOINT"),
    ]
    out.print(tables.useful_commands(commands))


def _way_out() -> str:
    return f"`{endpoints.way_up()}` brings it back"


def _json(life: EndpointLife, states: EndpointStates, *, everything: bool) -> dict[str, object]:
    shown = life.revisions.values() if everything else life.live
    figures = states.figures(life)
    down = states.unanswered(life)
    return {
        "endpoint": life.name,
        "down": f"{down}; {_way_out()}" if down else None,
        "shares": {f"r{number}": share for number, share in life.shares.items()},
        "shadow": None if life.shadow is None else f"r{life.shadow}",
        "overflow": None if life.overflow is None else f"r{life.overflow}",
        "revisions": [
            _revision(life, revision, states, figures[revision.name]) for revision in shown
        ],
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
    life: EndpointLife, revision: Revision, states: EndpointStates, figures: TrafficFigures
) -> dict[str, object]:
    deployment = revision.deployment
    return {
        "revision": revision.name,
        "state": states.state(life, revision),
        "reason": states.down(revision) or states.trouble(life, revision) or revision.reason,
        "pool": revision.pool,
        "emulated": deployment.pool.emulated if deployment else False,
        "format": deployment.format if deployment else None,
        "run": deployment.run if deployment else None,
        "model": deployment.model.uri if deployment else None,
        "replicas": list(states.urls(life, revision)),
        "requests": figures.requests,
        "errors": figures.errors,
    }
