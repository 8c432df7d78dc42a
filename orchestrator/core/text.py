"""Text as it may be kept and told: what UTF-8 or a database refuses is written as escapes."""

from __future__ import annotations

_NUL = "\0"


def valid(text: str) -> str:
    r"""Return `text` as any file, database or terminal that knows UTF-8 takes it.

    A lone surrogate becomes `\ud83d`, a NUL `\x00`; all else stays as it is.
    """
    if type(text) is str and text.isascii() and _NUL not in text:
        return text
    return str.encode(text, "utf-8", "backslashreplace").decode().replace(_NUL, r"\x00")


def shortened(text: str, most: int) -> str:
    """Return `text`, or its beginning and how long it is, where it has more than `most` signs."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
