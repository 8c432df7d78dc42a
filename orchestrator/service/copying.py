"""Move what is in one database to another: from a home's own to one that several hosts share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from orchestrator import wiring
from orchestrator.service.change import Change


def copy(source: str, target: str) -> Change[Mapping[str, int]]:
    """Copy a database, named by its file or address, into an empty one; the source stays.

    Return how many rows each table has.

    Raises:
        StoreError: One of them is an address that can't be read.

    Raises, when it is made:
        NotFoundError: There is no such file.
        HeldError: A run has a controller that lives.
        StoreError: The target isn't empty, or one of them can't be opened.
    """
    what = f"copy all of {wiring.shown_database(source)} to {wiring.shown_database(target)}"
    return Change(what, partial(wiring.copy_database, source, target))
