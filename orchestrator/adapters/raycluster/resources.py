"""What a pool can hold of an attempt: by what is declared, by what lives, by what is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.adapters.raycluster.nodes import room
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import AttemptRequest

_LEAST_CPU = 0.001  # a bundle can't be empty


def bundle(request: AttemptRequest) -> dict[str, float]:
    """Return the resources that one worker of `request` holds."""
    held = {"CPU": request.needs.cpus or _LEAST_CPU}
    resource = request.pool.accelerator.resource
    if resource and request.needs.devices:
        held[resource] = request.needs.devices
    return held


def bundle_of(request: AttemptRequest, workers: int) -> dict[str, float]:
    """Return the resources that so many workers of `request` hold on one node."""
    return {name: round(amount * workers, 4) for name, amount in bundle(request).items()}


def per_node(request: AttemptRequest) -> int:
    """Return how many workers of `request` share a bundle, which is then a node's alone.

    As many as a node of its pool holds, where they use chips and that divides the gang; a gang
    that a node holds is one bundle. Else each worker has a bundle of its own.
    """
    workers, chips = request.needs.workers, request.pool.accelerator.resource
    most = room(_node(request.pool), bundle(request))
    if chips not in bundle(request) or most < 1 or (workers > most and workers % most):
        return 1
    return min(workers, most)


def declared(request: AttemptRequest, *, without: int = 0) -> int:
    """Return how many workers the pool holds as it is declared, but for so many nodes."""
    nodes = max(0, request.pool.nodes - without)
    return nodes * room(_node(request.pool), bundle(request))


def of_all(request: AttemptRequest, ours: Sequence[Node], on_each: int | None = None) -> int:
    """Return how many workers the nodes `ours` hold when nobody else uses them.

    With `on_each` above 1 they lie so many on a node. An elastic gang takes any place.
    """
    return _capacity(request, [node.total for node in ours], on_each)


def free(request: AttemptRequest, ours: Sequence[Node], on_each: int | None = None) -> int:
    """Return how many workers have room on the nodes `ours` now; `on_each` is as of `of_all`."""
    return _capacity(request, [node.free for node in ours], on_each)


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
        f"pool {pool.name!r} can't give {request_text(request)}: "
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
    uneven = of_all(request, ours, 1) >= request.needs.workers
    wanted = request_text(request, by_node=uneven)
    return f"pool {pool.name!r} can't give {wanted} now: its {live} have {have}"


def request_text(request: AttemptRequest, *, by_node: bool = False) -> str:
    """Return what `request` asks for, in words; with how many lie on a node, if that matters."""
    workers, together = request.needs.workers, per_node(request)
    where = "all on one node" if together == workers else f"{together} on each node"
    each = _written(bundle(request))
    return f"{workers} x ({each}), {where}," if by_node else f"{workers} x ({each})"


def _node(pool: Pool) -> dict[str, float]:
    """Return what a node of `pool` has, as it is declared."""
    node: dict[str, float] = {"CPU": pool.cpus_per_node}
    if pool.accelerator.resource:
        node[pool.accelerator.resource] = pool.devices_per_node
    return node


def _capacity(
    request: AttemptRequest, amounts: Sequence[Mapping[str, float]], on_each: int | None
) -> int:
    usual = 1 if request.needs.min_workers is not None else per_node(request)
    together = on_each or usual
    bundles = [room(amount, bundle_of(request, together)) for amount in amounts]
    return sum(bundles) if together == 1 else together * sum(map(bool, bundles))


def _written(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())
