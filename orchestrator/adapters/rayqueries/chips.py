"""Which chips Ray has given this process, also those of makers that Ray does not know."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import ray

from orchestrator.adapters.rayqueries.chip_numbering import is_numbered


def unknown_to_ray(resource: str) -> bool:
    """Return whether Ray has no manager for these chips, which would show a process its own."""
    return resource not in ray._private.accelerators.get_all_accelerator_resource_names()  # noqa: SLF001 - nowhere else


def of_this_process(resource: str) -> list[str]:
    """Return the ids of the chips `resource` that are this process', by number.

    There are none where its node does not number them.
    """
    if not is_numbered(resource):
        return []
    worker = ray._private.worker.global_worker  # noqa: SLF001 - the public call knows Ray's makers only
    ids = worker.get_accelerator_ids_for_accelerator_resource(
        resource, f"^{resource}_group_[0-9A-Za-z]+$"
    )
    return in_order(map(str, ids))


def in_order(ids: Iterable[str]) -> list[str]:
    """Return the ids of chips by number, 2 before 10; those that are no numbers come last."""
    return sorted(ids, key=by_number)


def by_number(chip: str) -> tuple[int, str]:
    """Return by what the id of a chip is sorted."""
    return (int(chip) if chip.isdecimal() else sys.maxsize, chip)
