"""The border to devices, and to the foreign code that runs for one request.

Whatever they raise becomes a value, so that it can end the answers that it belongs to, and no
other, and the thread that makes all of them goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def attempt(act: Callable[[], Result]) -> Result | Exception:
    """Return what `act` returns, or what it raises."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - a border
        return error
