"""What a user may have meant: the hint that goes with an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

SHOWN, WIDTH = 24, 300  # names that are listed, and characters that they may take
LONGEST, COMPARED = 100, 1000  # a longer name is no slip of the pen; of more names none is sought


def nearest(name: str, names: Iterable[str], alike: float = 0.6) -> str | None:
    """Return the one of `names` that is spelled most like `name`, or `None` if none is.

    Of equal names `alike` is 1, of names without a letter in common 0.
    """
    from difflib import get_close_matches  # a third of a command's own start, for errors alone

    spelled = {other.lower(): other for other in names}
    matches = get_close_matches(name.lower(), spelled, n=1, cutoff=alike)
    return spelled[matches[0]] if matches else None


def choices(name: str, names: Iterable[str], noun: str) -> str:
    """Return the hint for the unknown `name`: the nearest of `names`, and those that exist."""
    names = sorted(names)
    listed = f"{noun}: {_listed(names) or 'none'}"
    close = nearest(name, names) if len(name) <= LONGEST and len(names) <= COMPARED else None
    return f"did you mean {close!r}? {listed}" if close else listed


def _listed(names: list[str]) -> str:
    widths = accumulate(len(name) + 2 for name in names[:SHOWN])
    count = sum(width <= WIDTH for width in widths)
    more = [f"and {len(names) - count} more"] if len(names) > count else []
    return ", ".join((*names[:count], *more))
