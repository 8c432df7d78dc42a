"""What a user may have meant: the hint that goes with an unknown name."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 24


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that is spelled most like `name`, or `None` if none is."""
    from difflib import get_close_matches  # a third of a command's own start, for errors alone

    spelled = {other.lower(): other for other in known}
    found = get_close_matches(name.lower(), spelled, n=1, cutoff=0.6)
    return spelled[found[0]] if found else None


def choices(name: str, known: Iterable[str], noun: str) -> str:
    """Return the hint for the unknown `name`: the nearest of `known`, and those that exist."""
    names = sorted(known)
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = f"{noun}: {', '.join(names[:SHOWN]) or 'none'}{more}"
    close = nearest(name, names)
    return f"did you mean {close!r}? {listed}" if close else listed
