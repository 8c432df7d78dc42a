"""Text as it may be kept and told: what UTF-8 or a database refuses is written as escapes."""

from __future__ import annotations

import unicodedata

_NUL = "\0"
_LAYOUT = "\n\t"
_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, other line ends
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the order of signs


def valid(text: str) -> str:
    r"""Return `text` as any file, database or terminal that knows UTF-8 takes it.

    A lone surrogate becomes `\ud83d`, a NUL `\x00`; all else stays as it is.
    """
    if type(text) is str and text.isascii() and _NUL not in text:
        return text
    return str.encode(text, "utf-8", "backslashreplace").decode().replace(_NUL, r"\x00")


def storable(text: str) -> bool:
    """Return whether `text` can be kept as UTF-8: it has no lone surrogate."""
    return text.isascii() or valid(text.replace(_NUL, "")) == text.replace(_NUL, "")


def visible(text: str) -> str:
    r"""Return `text` as a terminal shows it and does not obey it: `\x1b[31m` is written out.

    Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(sign) if _acts(sign) else sign for sign in text)


def _acts(sign: str) -> bool:
    return sign in _TURNS or (sign not in _LAYOUT and unicodedata.category(sign) in _HIDDEN)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def shortened(text: str, most: int) -> str:
    """Return `text`, or its beginning and how long it is, where it has more than `most` signs."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
