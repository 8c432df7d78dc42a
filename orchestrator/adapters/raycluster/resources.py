"""What a pool can hold of an attempt: by what is declared, by what lives, by what is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.adapters.raycluster.nodes import room
from orchestrator.adapters.rayqueries.tables import Node
from orchestrator.messages import AttemptRequest

_LEAST_CPU = 0.001  # a bundle can't be empty


def bundle(request: AttemptRequest) -> dict[str, float]:
    """Return the resources that one worker of `request` holds."""
    held = {"CPU": request.needs.cpus or _LEAST_CPU}
    resource = request.pool.accelerator.resource
    if resource and request.needs.devices:
        held[resource] = request.needs.devices
    return held


def declared(request: AttemptRequest, *, without: int = 0) -> int:
    """Return how many workers the pool holds as it is declared, but for so many nodes."""
    pool = request.pool
    node: dict[str, float] = {"CPU": pool.cpus_per_node}
    if pool.accelerator.resource:
        node[pool.accelerator.resource] = pool.devices_per_node
    return max(0, pool.nodes - without) * room(node, bundle(request))


def of_all(request: AttemptRequest, ours: Sequence[Node]) -> int:
    """Return how many workers the nodes `ours` hold when nobody else uses them."""
    return sum(room(node.total, bundle(request)) for node in ours)


def free(request: AttemptRequest, ours: Sequence[Node]) -> int:
    """Return how many workers have room on the nodes `ours` now."""
    return sum(room(node.free, bundle(request)) for node in ours)


def never(request: AttemptRequest) -> str:
    """Return why the pool can never hold the fewest workers of `request`; empty where it can."""
    pool, nodes = request.pool, request.pool.nodes
    if declared(request) >= request.needs.least:
        return ""
    have: dict[str | None, int] = {
        "CPU": pool.cpus_per_node,
        pool.accelerator.resource: pool.devices_per_node,
    }
    each = _written({name: nodes * have.get(name, 0) for name in bundle(request)})
    plural = "s" if nodes > 1 else ""
    return (
        f"pool {pool.name!r} can't give {asked(request)}: "
        f"its {nodes} declared node{plural} have {each}"
    )


def lack(request: AttemptRequest, ours: Sequence[Node], avoid: Sequence[str]) -> str:
    """Return why the live nodes `ours` can't hold `request`, however long one waits for others.

    Empty where they can. `avoid` names nodes of the pool that `ours` leaves out.
    """
    pool = request.pool
    if of_all(request, ours) >= request.needs.workers:
        return ""
    but = f" but {', '.join(map(repr, avoid))}, which it avoids," if avoid else ""
    if not ours:
        labels = ", ".join(f"{key}={value}" for key, value in pool.selector.items())
        none = f"none{but}" if avoid else "none"
        return f"pool {pool.name!r} has no live node: {none} carries the labels {labels!r}"
    have = _written({n: sum(node.total.get(n, 0.0) for node in ours) for n in bundle(request)})
    live = f"{len(ours)} live node{'s' if len(ours) > 1 else ''}{but}"
    return f"pool {pool.name!r} can't give {asked(request)} now: its {live} have {have}"


def asked(request: AttemptRequest) -> str:
    """Return what `request` asks for, in words."""
    return f"{request.needs.workers} x ({_written(bundle(request))})"


def _written(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())
