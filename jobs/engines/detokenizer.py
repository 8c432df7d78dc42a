"""From token ids to text, a token at a time: whole characters, and no text of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"
_LONGEST = 8  # tokens: no character has more bytes, so the token itself is broken


class Detokenizer:
    """Turns tokens into text as they come; bytes that are no whole character yet are held back.

    Each new text is the difference of two decodings that start at the same earlier token,
    because many tokenizers decode a token differently when it comes first.

    Args:
        decode: Returns the text of tokens.
        token_bytes: Returns what a token stands for, where that is known; else a text that ends by
            the replacement character is taken for a part of one.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        token_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        self._decode = decode
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._window: list[int] = []
        self._read = 0
        self._before = ""

    def add(self, token: int, *, last: bool = False) -> str:
        """Return the text that `token` completes; with `last`, all that was held back too."""
        self._window.append(token)
        after = self._decode(self._window)
        if self._breaks_off(token, after) and not last:
            return ""
        ready = after[len(self._before) :]
        del self._window[: self._read]
        self._read = len(self._window)
        self._before = self._decode(self._window)
        return ready

    def rest(self) -> str:
        """Return what was held back."""
        return self._decode(self._window)[len(self._before) :]

    def _breaks_off(self, token: int, text: str) -> bool:
        """Whether a character is not complete."""
        if self._token_bytes is None:
            return text.endswith(_BROKEN) and len(self._window) - self._read < _LONGEST
        self._utf8.decode(self._token_bytes(token))
        return bool(self._utf8.getstate()[0])


class StopFilter:
    """Passes text on until a stop string is complete; what may become one is held back.

    Args:
        stop: The stop strings.
        include: Whether the one that came is passed on too.

    Attributes:
        came: The stop string that came, if one did.
    """

    def __init__(self, stop: Sequence[str], *, include: bool = False) -> None:
        self._stop = tuple(stop)
        self._include = include
        self._withheld = ""
        self.came: str | None = None

    def add(self, text: str, *, last: bool = False) -> tuple[str, bool]:
        """Return what may be passed on, and whether a stop string came."""
        self._withheld += text
        places = [(self._withheld.find(stop), stop) for stop in self._stop]
        complete = [place for place in places if place[0] >= 0]
        if complete:
            begin, self.came = min(complete, key=lambda place: place[0])
            return self._withheld[: begin + len(self.came) * self._include], True
        keep = 0 if last else max(map(self._overlap, self._stop), default=0)
        ready = self._withheld[: len(self._withheld) - keep]
        self._withheld = self._withheld[len(ready) :]
        return ready, False

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._withheld))
        return next((n for n in range(longest, 0, -1) if self._withheld.endswith(stop[:n])), 0)
