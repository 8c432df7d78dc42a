"""Where an attempt finds its place: on nodes of its pool, by label and by resource.

What can never be placed is known from what the nodes have, at once. A single worker that finds
room now goes there as a plain task, which is some 100 ms quicker than by a placement group; all
else takes a placement group, which holds the workers of a gang together and tells why it waits.
An elastic gang asks for as many workers as the live nodes hold; where others keep it from that
place, for as many as are free.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.adapters.raycluster import nodes
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.messages import AttemptRequest, Failed, Waiting

Group: TypeAlias = Any  # Ray's handles carry no useful types
INFEASIBLE = "INFEASIBLE"
NO_RESOURCES = "NO_RESOURCES"
NODE_ID = "ray.io/node-id"  # the label that Ray gives each node
# Figures of what is free lag behind, so a gang waits a little before it goes on with fewer.
SHRINK_SECONDS = 3.0
_LEAST_CPU = 0.001  # a bundle can't be empty


def bundle(request: AttemptRequest) -> dict[str, float]:
    """Return the resources that one worker of `request` holds."""
    held = {"CPU": request.needs.cpus or _LEAST_CPU}
    resource = request.pool.accelerator.resource
    if resource and request.needs.devices:
        held[resource] = request.needs.devices
    return held


def free_room(request: AttemptRequest) -> int:
    """Return how many workers of `request` have room on its pool now."""
    ours = nodes.of_pool(request.pool, nodes.live())
    free = (node.free for node in ours if node.name not in request.avoid)
    return sum(nodes.room(amounts, bundle(request)) for amounts in free)


class Placement:
    """The place of one attempt: held by its workers alone, or by a placement group."""

    def __init__(
        self, request: AttemptRequest, held: Mapping[str, float], *, together: bool = False
    ) -> None:
        """Ask for a place, `together` in any case, unless there can't be one; returns at once.

        `held` is what other attempts of this process have asked of the pool: Ray's own figures
        of what is free come a moment late.
        """
        self._bundle = bundle(request)
        self._told = False
        self._since = time.monotonic()
        self._group: Group = None
        ours = self._look(request)
        workers = max(request.needs.least, min(request.needs.workers, self._room(ours)))
        self.request = replace(request, needs=replace(request.needs, workers=workers))
        self.impossible = self._lack(ours)
        alone = workers == 1 and not together and self._fits_now(ours, held)
        if not self.impossible and not alone:
            self._group = self._ask()

    @property
    def created(self) -> bool:
        """Whether the whole place is there, all of it held."""
        group = self._group
        return group is not None and placement_group_table(group)["state"] == "CREATED"

    @property
    def asked(self) -> Mapping[str, float]:
        """What all workers together hold."""
        return {name: amount * self._workers for name, amount in self._bundle.items()}

    def options(self, rank: int) -> dict[str, Any]:
        """Return the options that send the process of worker `rank` to its place."""
        held = dict(self._bundle)
        options = {
            "num_cpus": held.pop("CPU"),
            "num_gpus": held.pop("GPU", 0),
            "resources": held,
            "runtime_env": self.request.pool.runtime_env,
        }
        if self._group is None:
            return {**options, "label_selector": self._selector}
        return {
            **options,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, rank),
        }

    def news(self) -> list[Waiting | Failed]:
        """Return why there is no place yet, each reason once, or that there never will be one."""
        state = ""
        if self._group is not None:
            table: dict[str, Any] = placement_group_table(self._group)
            state = "" if table["state"] == "CREATED" else table["stats"]["scheduling_state"]
        self.impossible = self.impossible or self._lack(self._look(self.request))
        if not self.impossible and state == INFEASIBLE:
            self.impossible = f"no node of pool {self.request.pool.name!r} can give {self._asked}"
        if self.impossible:
            pool = self.request.pool.name
            kind = FailureKind.PLACEMENT
            return [Failed(Failure(kind=kind, evidence=self.impossible, pool=pool))]
        if state != NO_RESOURCES or self._told:
            return []
        self._told = True
        return [
            Waiting(
                f"pool {self.request.pool.name!r} is busy: {self._asked} is not free", queued=True
            )
        ]

    def smaller(self) -> int | None:
        """Return with how many workers a gang that waits can go on now, if it can with fewer."""
        least = self.request.needs.min_workers
        waited = time.monotonic() - self._since
        if least is None or not self._told or waited < SHRINK_SECONDS:
            return None
        free = free_room(self.request)
        return free if least <= free < self._workers else None

    def give_back(self) -> None:
        """Remove the placement group, and with it whatever runs in it."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None

    def _look(self, request: AttemptRequest) -> list[nodes.Node]:
        """Return the live nodes where workers may be placed; note which may not take any."""
        ours = nodes.of_pool(request.pool, nodes.live())
        avoided = [node.id for node in ours if node.name in request.avoid]
        self._selector = dict(request.pool.selector)
        if avoided:
            self._selector[NODE_ID] = f"!in({','.join(avoided)})"
        return [node for node in ours if node.id not in avoided]

    def _ask(self) -> Group:
        return placement_group(
            [self._bundle] * self._workers,
            strategy="PACK",
            name=self.request.key,
            bundle_label_selector=[self._selector] * self._workers,
        )

    def _room(self, ours: Sequence[nodes.Node]) -> int:
        return sum(nodes.room(node.total, self._bundle) for node in ours)

    def _fits_now(self, ours: Sequence[nodes.Node], held: Mapping[str, float]) -> bool:
        left = {n: sum(o.total.get(n, 0.0) for o in ours) - held.get(n, 0.0) for n in self._bundle}
        free = any(nodes.room(node.free, self._bundle) for node in ours)
        return free and nodes.room(left, self._bundle) > 0

    def _lack(self, ours: Sequence[nodes.Node]) -> str:
        """Return why the nodes `ours` can never give what is asked; empty when they can."""
        pool, avoid = self.request.pool, self.request.avoid
        if self._room(ours) >= self._workers:
            return ""
        but = f" but {', '.join(map(repr, avoid))}, where it failed," if avoid else ""
        if not ours:
            labels = ", ".join(f"{key}={value}" for key, value in pool.selector.items())
            none = f"none{but}" if avoid else "none"
            return f"pool {pool.name!r} has no live node: {none} carries the labels {labels!r}"
        each = ", ".join(
            f"{sum(node.total.get(name, 0.0) for node in ours):g} {name}" for name in self._bundle
        )
        live = f"{len(ours)} live node{'s' if len(ours) > 1 else ''}{but}"
        return f"pool {pool.name!r} can't give {self._asked}: its {live} have {each}"

    @property
    def _workers(self) -> int:
        return self.request.needs.workers

    @property
    def _asked(self) -> str:
        each = ", ".join(f"{amount:g} {name}" for name, amount in self._bundle.items())
        return f"{self._workers} x ({each})"
