"""Where an attempt finds its place: on nodes of its pool, by label and by resource.

What the declared nodes of a pool can never hold is told at once. What its live nodes lack now is
waited for, with the reason: a node may come back, and a cluster that scales starts one because it
is asked for. A single worker that finds room now goes there as a plain task, which is some 100 ms
quicker than by a placement group; all else takes a placement group, which holds the workers of a
gang together, asks for nodes, and tells why it waits. A gang that fills nodes has one bundle a
node, each on another one, and waits for whole nodes; one that a node holds has a single bundle. An
elastic gang asks for as many workers as the live nodes hold; where others keep it from that place,
after a while for as many as are free. It takes whole nodes where there are, else any chips.
Nodes to avoid are avoided as long as others can do; rather than not at all it runs on those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.adapters.raycluster import process, resources
from orchestrator.adapters.raycluster.nodes import ClusterNodes, of_pool, room
from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.adapters.rayqueries.cluster_tables import INFEASIBLE, NO_RESOURCES, Node
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import AttemptRequest, Failed, Waiting

Group: TypeAlias = Any  # Ray's handles carry no useful types
NODE_ID = "ray.io/node-id"  # the label that Ray gives each node
SECONDS_BETWEEN_LOOKS = 0.25


class PlacementGroups:
    """The placement groups of the cluster that this process is connected to."""

    def ask(self, bundles: list[dict[str, float]], **options: Any) -> Group:  # noqa: ANN401 - as Ray has them
        """Ask for a group with such bundles; it comes when there is room."""
        return placement_group(bundles, **options)

    def state(self, group: Group) -> cluster_tables.Group:
        """Return what the cluster says of a group."""
        return cluster_tables.group(group)

    def end(self, name: str) -> None:
        """Remove the group of that name that an earlier controller has left."""
        process.end_group(name)


GROUPS = PlacementGroups()


class Placement:
    """The place of one attempt: held by its workers alone, or by a placement group."""

    def __init__(
        self,
        request: AttemptRequest,
        nodes: ClusterNodes,
        reserved: Mapping[str, float],
        *,
        together: bool = False,
        now: Callable[[], float] = time.monotonic,
        groups: PlacementGroups = GROUPS,
    ) -> None:
        """Ask for a place, unless there can't be one; returns at once.

        Those that are to stand by are held `together` by a placement group in any case.

        `reserved` is what other attempts of this process have asked of the pool: Ray's own figures
        of what is free come a moment late.
        """
        self.nodes = nodes
        self._now, self._groups = now, groups
        self._since = self._next_look = now()
        self._last_reason = ""
        self._group: Group = None
        self.impossible = resources.never(request)
        avoid = _in_force(request, nodes.live())
        self._drops = tuple(name for name in request.avoid if name not in avoid)
        request = replace(request, avoid=avoid)
        ours = _usable(request, nodes.live())
        self._selector = _selector(request, nodes.live())
        self.request = _sized(request, resources.of_all(request, ours))
        self._bundle = resources.bundle(request)
        self._per_node = 1 if self._scattered(ours) else resources.per_node(self.request)
        alone = self._workers == 1 and not together and self._fits_now(ours, reserved)
        name = process.standby(request.run, request.stage) if together else request.key
        if not self.impossible and not alone:
            self._group = self._ask(name)

    @property
    def created(self) -> bool:
        """Whether the whole place is there, all of it held."""
        return self._group is not None and self._groups.state(self._group).created

    @property
    def resources(self) -> Mapping[str, float]:
        """What all workers together hold."""
        return {name: amount * self._workers for name, amount in self._bundle.items()}

    def options(self, rank: int) -> dict[str, Any]:
        """Return the options that send the process of worker `rank` to its place."""
        held = dict(self._bundle)
        options = {
            "num_cpus": held.pop("CPU"),
            "num_gpus": held.pop("GPU", 0),
            "resources": held,
            "runtime_env": self.request.pool.runtime_env(self.request.env),
        }
        if self._group is None:
            return {**options, "label_selector": self._selector}
        return {
            **options,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self._group, rank // self._per_node
            ),
        }

    def news(self) -> list[Waiting | Failed]:
        """Return why there is no place yet, each reason once, or that there never will be one."""
        pool = self.request.pool.name
        if self.impossible:
            kind = FailureKind.PLACEMENT
            return [Failed(Failure(kind=kind, evidence=self.impossible, pool=pool))]
        if self._now() < self._next_look:
            return []
        self._next_look = self._now() + SECONDS_BETWEEN_LOOKS
        if self._drops:
            names, self._drops = ", ".join(map(repr, self._drops)), ()
            reason = f"pool {pool!r} holds it nowhere but on {names}, which it avoids: goes there"
            return [Waiting(reason, queued=True)]
        reason, queued = self._reason()
        if reason in {"", self._last_reason}:
            return []
        self._last_reason = reason
        return [Waiting(reason, queued=queued)]

    def anew(self) -> AttemptRequest | None:
        """Return the request with which to ask anew, if another place is nearer than this one."""
        live, request = self.nodes.live(), self.request
        waited = self._now() - self._since
        if self.impossible or not self._last_reason:
            return None
        if self._goes_back(live):
            return replace(request, avoid=())
        if self._selector != _selector(request, live) and not self.created:
            return request  # a node that is to be avoided has come back under another id
        least = request.needs.min_workers
        if least is None or waited < request.waits.shrink:
            return None
        usable = _usable(request, live)
        free = min(self._workers, resources.free(request, usable))
        nearer = free < self._workers or (self._per_node > 1 and self._scattered(usable))
        if free < least or not nearer:
            return None
        return replace(request, needs=replace(request.needs, workers=free))

    def give_back(self) -> None:
        """Remove the placement group, and with it whatever runs in it."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None

    def _reason(self) -> tuple[str, bool]:
        """Return why there is no place yet, if that is known, and whether others hold it."""
        state = ""
        if self._group is not None:
            group = self._groups.state(self._group)
            if group.created:
                return "", False
            state = group.waits_for
        pool, asked = self.request.pool.name, resources.request_text(self.request)
        ours = _usable(self.request, self.nodes.live())
        unused = (*self.request.avoid, *self.request.drained)
        lacking = resources.lack(self.request, ours, unused)
        if lacking and self._goes_back(self.nodes.live()):
            names = ", ".join(map(repr, self.request.avoid))
            back = (
                f"no node but {names} came within {self.request.waits.avoid:g} s: goes back there"
            )
            return f"pool {pool!r}: {back}", False
        if lacking:
            return lacking, False
        if state == INFEASIBLE:
            return f"no node of pool {pool!r} can give {asked} now", False
        waited = self._now() - self._since
        late = self._group is None and waited > self.request.waits.begin
        if state == NO_RESOURCES or (late and not resources.free(self.request, ours)):
            scattered = self._per_node > 1 and self._only_scattered(ours)
            asked = resources.request_text(self.request, by_node=scattered)
            return f"pool {pool!r} is busy: {asked} is not free", True
        return "", False

    def _goes_back(self, live: Sequence[Node]) -> bool:
        """Whether it has waited enough for other nodes than those where its stage failed.

        The live nodes hold it, but only with those.
        """
        request = self.request
        if not request.avoid or self._now() - self._since <= request.waits.avoid:
            return False
        without = resources.of_all(request, _usable(request, live))
        all_of_them = resources.of_all(request, _usable(replace(request, avoid=()), live))
        return without < request.needs.least <= all_of_them

    def _ask(self, name: str) -> Group:
        """Ask for a group of that name; one that an earlier controller has goes first."""
        self._groups.end(name)
        bundles = self._workers // self._per_node
        return self._groups.ask(
            [resources.bundle_of(self.request, self._per_node)] * bundles,
            strategy="STRICT_SPREAD" if self._per_node > 1 else "PACK",
            name=name,
            bundle_label_selector=[self._selector] * bundles,
        )

    def _scattered(self, ours: Sequence[Node]) -> bool:
        """Whether it goes to chips on any nodes: an elastic gang that has room there alone."""
        return self.request.needs.min_workers is not None and self._only_scattered(ours)

    def _only_scattered(self, ours: Sequence[Node]) -> bool:
        """Whether there is room now, but not on whole nodes."""
        by_node = resources.free(self.request, ours, resources.per_node(self.request))
        return by_node < self._workers <= resources.free(self.request, ours, 1)

    def _fits_now(self, ours: Sequence[Node], reserved: Mapping[str, float]) -> bool:
        totals = {name: sum(node.total.get(name, 0.0) for node in ours) for name in self._bundle}
        left = {name: total - reserved.get(name, 0.0) for name, total in totals.items()}
        return resources.free(self.request, ours) > 0 and room(left, self._bundle) > 0

    @property
    def _workers(self) -> int:
        return self.request.needs.workers


def free_room(request: AttemptRequest, nodes: ClusterNodes) -> int:
    """Return how many workers of `request` have room on its pool now."""
    return resources.free(request, _usable(request, nodes.live()))


def _usable(request: AttemptRequest, live: Sequence[Node]) -> list[Node]:
    """Return the live nodes of the pool but those that are to be avoided."""
    unused = {*request.avoid, *request.drained}
    return [node for node in of_pool(request.pool, live) if node.name not in unused]


def _in_force(request: AttemptRequest, live: Sequence[Node]) -> tuple[str, ...]:
    """Return the nodes to avoid: none where the others, as they are declared, can't do.

    Names of nodes that belong to other pools now mean nothing here.
    """
    ours = {node.name for node in of_pool(request.pool, live)}
    others = {node.name for node in live} - ours
    avoid = tuple(name for name in request.avoid if name not in others)
    unused = len({*avoid, *request.drained})
    enough = resources.declared(request, without=unused) >= request.needs.least
    return avoid if enough else ()


def _selector(request: AttemptRequest, live: Sequence[Node]) -> dict[str, str]:
    ours = of_pool(request.pool, live)
    unused = {*request.avoid, *request.drained}
    avoided = sorted(node.id for node in ours if node.name in unused)
    not_there = {NODE_ID: f"!in({','.join(avoided)})"} if avoided else {}
    return {**request.pool.selector, **not_there}


def _sized(request: AttemptRequest, places: int) -> AttemptRequest:
    """Return `request` for as many workers as there are places, where that will do.

    Else it asks for as many as the pool has: so nodes are started, where the cluster can do that.
    """
    needs = request.needs
    most = places if places >= needs.least else max(needs.least, resources.declared(request))
    workers = min(needs.workers, most)
    return replace(request, needs=replace(needs, workers=workers))
