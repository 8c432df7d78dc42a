"""That the services of a home are about to be stopped: whoever uses them leaves first.

The mark is `HOME/services/leaving`, with the name of the process that stops them; one of a process
that has died says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.supervisor import file_modes, holder
from orchestrator.supervisor import record as records

_MARK = "leaving"


@contextmanager
def leaving(home: Path) -> Iterator[None]:
    """Have those who use the services of `home` leave, and keep others away meanwhile."""
    mark = records.folder_of(home) / _MARK
    file_modes.private_folder(mark.parent)
    mark.write_text(holder.name(), "utf-8")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def is_leaving(home: Path) -> bool:
    """Return whether the services of `home` are about to be stopped."""
    try:
        who = (records.folder_of(home) / _MARK).read_text("utf-8")
    except OSError:
        return False
    return bool(holder.lives(who))
