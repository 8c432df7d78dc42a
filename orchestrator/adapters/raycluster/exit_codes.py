"""With which code a worker's process ended itself at once: Ray sees no more than that it is gone.

So the line that says so is the last one of its own output, which outlives it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_STDERR = 2
_LINE = re.compile(r"os\._exit\((-?\d+)\) ended this process$")


@contextmanager
def told() -> Iterator[None]:
    """Have `os._exit` of this process, but not of its children, write with which code."""
    leave, owner = os._exit, os.getpid()

    def tell_and_leave(status: int) -> NoReturn:
        if os.getpid() == owner:
            with suppress(OSError):  # on a line of its own, whatever was written before
                os.write(_STDERR, f"\nos._exit({status}) ended this process\n".encode())
        leave(status)

    os._exit = tell_and_leave
    try:
        yield
    finally:
        os._exit = leave


def code(line: str) -> int | None:
    """Return the code with which the process ended itself, if `line` says so."""
    found = _LINE.match(line)
    return int(found[1]) if found else None
