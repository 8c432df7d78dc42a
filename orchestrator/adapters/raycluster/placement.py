"""Where an attempt finds its place: on nodes of its pool, by label and by resource.

What can never be placed is known from what the nodes have, at once. A single worker that finds
room now goes there as a plain task, which is some 100 ms quicker than by a placement group; all
else takes a placement group, which holds the workers of a gang together and tells why it waits.
"""

from __future__ import annotations

from collections.abc import Mapping
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
_LEAST_CPU = 0.001  # a bundle can't be empty


def bundle(request: AttemptRequest) -> dict[str, float]:
    """Return the resources that one worker of `request` holds."""
    held = {"CPU": request.needs.cpus or _LEAST_CPU}
    resource = request.pool.accelerator.resource
    if resource and request.needs.devices:
        held[resource] = request.needs.devices
    return held


class Placement:
    """The place of one attempt: held by its workers alone, or by a placement group."""

    def __init__(self, request: AttemptRequest, held: Mapping[str, float]) -> None:
        """Ask for a place, unless there can't be one; returns at once.

        `held` is what other attempts of this process have asked of the pool: Ray's own figures
        of what is free come a moment late.
        """
        self._request = request
        self._bundle = bundle(request)
        self._told = False
        self._group: Group = None
        self.impossible = self._lack()
        if not self.impossible and not (request.needs.workers == 1 and self._fits_now(held)):
            self._group = self._ask()

    @property
    def asked(self) -> Mapping[str, float]:
        """What all workers together hold."""
        return {
            name: amount * self._request.needs.workers for name, amount in self._bundle.items()
        }

    def options(self, rank: int) -> dict[str, Any]:
        """Return the options that send the process of worker `rank` to its place."""
        held = dict(self._bundle)
        options = {
            "num_cpus": held.pop("CPU"),
            "num_gpus": held.pop("GPU", 0),
            "resources": held,
        }
        if self._group is None:
            return {**options, "label_selector": self._request.pool.selector}
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
        self.impossible = self.impossible or self._lack()
        if not self.impossible and state == INFEASIBLE:
            self.impossible = f"no node of pool {self._request.pool.name!r} can give {self._asked}"
        if self.impossible:
            pool = self._request.pool.name
            kind = FailureKind.PLACEMENT
            return [Failed(Failure(kind=kind, evidence=self.impossible, pool=pool))]
        if state != NO_RESOURCES or self._told:
            return []
        self._told = True
        return [Waiting(f"pool {self._request.pool.name!r} is busy: {self._asked} is not free")]

    def give_back(self) -> None:
        """Remove the placement group, and with it whatever runs in it."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None

    def _ask(self) -> Group:
        workers = self._request.needs.workers
        return placement_group(
            [self._bundle] * workers,
            strategy="PACK",
            name=self._request.key,
            bundle_label_selector=[self._request.pool.selector] * workers,
        )

    def _fits_now(self, held: Mapping[str, float]) -> bool:
        ours = nodes.of_pool(self._request.pool, nodes.live())
        left = {n: sum(o.total.get(n, 0.0) for o in ours) - held.get(n, 0.0) for n in self._bundle}
        free = any(nodes.room(node.free, self._bundle) for node in ours)
        return free and nodes.room(left, self._bundle) > 0

    def _lack(self) -> str:
        """Return why the pool can never give what is asked; empty when it can."""
        pool = self._request.pool
        ours = nodes.of_pool(pool, nodes.live())
        if (
            sum(nodes.room(node.total, self._bundle) for node in ours)
            >= self._request.needs.workers
        ):
            return ""
        if not ours:
            labels = ", ".join(f"{key}={value}" for key, value in pool.selector.items())
            return f"pool {pool.name!r} has no live node: none carries the labels {labels!r}"
        each = ", ".join(
            f"{sum(node.total.get(name, 0.0) for node in ours):g} {name}" for name in self._bundle
        )
        live = f"{len(ours)} live node{'s' if len(ours) > 1 else ''}"
        return f"pool {pool.name!r} can't give {self._asked}: its {live} have {each}"

    @property
    def _asked(self) -> str:
        each = ", ".join(f"{amount:g} {name}" for name, amount in self._bundle.items())
        return f"{self._request.needs.workers} x ({each})"
