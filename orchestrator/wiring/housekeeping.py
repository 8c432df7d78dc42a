"""What keeps house: this machine's cache, and a database that moves to another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.core.artifact import ANY_ROOM
from orchestrator.wiring.storage import room_here


def sweep_cache(before: float, *, dry: bool) -> int:
    """Remove from this machine's cache what was not used since `before`; return its bytes."""
    from orchestrator.adapters.artifacts.node_cache import NodeCache, cache_root

    return NodeCache(cache_root(room_here(ANY_ROOM).folder)).sweep(before, dry=dry)


def copy_database(source: str, target: str) -> Mapping[str, int]:
    """Copy all of a database, a file or a URL, into an empty one; return the rows by table.

    Raises:
        NotFoundError: There is no such file.
        HeldError: A run of it has a controller that lives.
        StoreError: The target isn't empty, or one of them can't be opened.
    """
    from orchestrator.adapters.database import whole_copy

    return whole_copy.copy(_place(source), _place(target))


def shown_database(place: str) -> str:
    """Return a database, a file or a URL, as it may be shown: without its password.

    Raises:
        StoreError: It is an address that can't be read.
    """
    from orchestrator.adapters.database import addresses, transactions

    return transactions.checked(place) if addresses.is_address(place) else place


def _place(text: str) -> str | Path:
    from orchestrator.adapters.database import addresses

    return text if addresses.is_address(text) else Path(text)
