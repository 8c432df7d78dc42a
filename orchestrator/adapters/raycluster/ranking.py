"""Which worker of a gang gets which rank: those of one node follow each other, by their chips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.adapters.rayqueries.chips import by_number


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """A process on the node with id `node`, with the `chips` that it is given there, in order.

    `software` has the versions that it runs, by name; `unfit` says why it may not work, if so.
    """

    node: str
    chips: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)
    unfit: str = ""


def ranked(
    places: Sequence[WorkerPlace], name: Callable[[str], str]
) -> tuple[list[int], tuple[int, ...]]:
    """Return the numbers of `places` by rank, and by rank the number of each node.

    Nodes are sorted by what `name` says of their ids.
    """

    def key(number: int) -> tuple[object, ...]:
        place = places[number]
        return name(place.node), place.node, [by_number(chip) for chip in place.chips], number

    order = sorted(range(len(places)), key=key)
    nodes = [places[number].node for number in order]
    numbered = {node: number for number, node in enumerate(dict.fromkeys(nodes))}
    return order, tuple(numbered[node] for node in nodes)
