"""From token ids to text, a token at a time: whole characters, and no text of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"


class Detokenizer:
    """Turns tokens into text as they come; bytes that are no whole character yet are held back.

    Each new text is the difference of two decodings that start at the same earlier token,
    because many tokenizers decode a token differently when it comes first.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._read = 0
        self._before = ""

    def add(self, token: int, *, last: bool = False) -> str:
        """Return the text that `token` completes; with `last`, all that was held back too."""
        self._window.append(token)
        after = self._decode(self._window)
        if after.endswith(_BROKEN) and not last and len(self._window) - self._read < 8:  # noqa: PLR2004 - no character has more bytes, so the token itself is broken
            return ""
        ready = after[len(self._before) :]
        del self._window[: self._read]
        self._read = len(self._window)
        self._before = self._decode(self._window)
        return ready


class StopFilter:
    """Passes text on until a stop string is complete; what may become one is held back."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def add(self, text: str, *, last: bool = False) -> tuple[str, bool]:
        """Return what may be passed on, and whether a stop string came."""
        self._held += text
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            return self._held[: min(found)], True
        keep = 0 if last else max(map(self._overlap, self._stop), default=0)
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        return ready, False

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
