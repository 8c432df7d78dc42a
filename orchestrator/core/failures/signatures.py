"""Signatures: what the error lines of the makers show, as data, and which of them a line has.

A pattern that begins with `^` fits where the words of a line begin, after its time, level, rank,
place in a source and type of exception; any other pattern is searched in the whole line, but for
what is quoted. The signature with the highest `priority` counts, and of equals the first.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from orchestrator.core.failures import lines
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.failures.literals import Haystack, needles
from orchestrator.core.failures.python_errors import bases, is_plain

Shows: TypeAlias = Literal["cause", "likely", "victim", "effect"]
# What says more stands before what says less.
STRENGTH: tuple[Shows, ...] = ("cause", "likely", "victim", "effect")
# A pattern that names the type of a plain exception fits there, and no other pattern does.
_NAMES_A_TYPE = re.compile(r"\^[\w.|()?:\\*]*(?:Error|Exception)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A regular expression, and what a line that has it shows.

    Attributes:
        pattern: What to look for; with `^`, where the words of a line begin.
        kind: What it shows.
        shows: A `cause`; a `likely` one, behind which another cause may stand; a `victim`, which
            the others of a gang see when one is gone; or an `effect`, which is never a cause.
        loud: Whether it is looked for only in exceptions and in lines that say ERROR or worse.
        source: Where it is documented.
        priority: The highest counts; of equals, the first.
        name: What the config calls it.
    """

    pattern: str
    kind: FailureKind
    shows: Shows = "cause"
    loud: bool = False
    source: str = ""
    priority: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Sign:
    """A signature that was found, the line that has it, and what it shows there.

    One `of_a_signal` was found in what a handler of signals wrote.
    """

    signature: Signature
    line: str
    shows: Shows
    of_a_signal: bool = False

    @property
    def weakness(self) -> int:
        """How little it says: 0 is a cause."""
        return STRENGTH.index(self.shows)


class Matcher:
    """All signatures of a config, to be looked for in one line after the other."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        """Order and compile them."""
        ordered = sorted(signatures, key=lambda signature: -signature.priority)
        self.by_name = {signature.name: signature for signature in ordered}
        self._ordered = tuple(_Compiled(signature) for signature in ordered)
        self._always: list[int] = []
        by_needle: dict[str, list[int]] = defaultdict(list)
        for at, signature in enumerate(ordered):
            words = needles(signature.pattern)
            for word in words or ():
                by_needle[word].append(at)
            if words is None:
                self._always.append(at)
        self._haystack = Haystack(by_needle)

    def in_line(self, text: str) -> Sign | None:
        """Return what a line of a log shows, if anything."""
        fitting = self._fitting(text)
        if not fitting:
            return None
        line = lines.read(text)
        if line.level is lines.Level.QUIET:
            return None
        plain = bool(line.raised) and is_plain(bases(line.raised))
        if not line.loud:
            fitting = _soft(fitting)
        sign = _find(line, fitting, plain=plain)
        if sign is None or lines.survived(line.text) or lines.labelled(line):
            return None
        return _weaker(sign) if line.level is lines.Level.WARNING else sign

    def in_words(self, text: str, *, plain: bool, first: bool = True) -> Sign | None:
        """Return what a line of an exception shows; the first begins with its type."""
        fitting = self._fitting(text)
        if not first and lines.of_a_stack(text):
            fitting = _soft(fitting)
        if not fitting:
            return None
        return _find(lines.read(text, of_exception=first), fitting, plain=plain)

    def _fitting(self, text: str) -> Sequence[_Compiled]:
        """Return the signatures that may be in `text`, in order: those of which it has a word."""
        positions = self._haystack.matches(text[: lines.LONGEST].lower())
        return [self._ordered[at] for at in sorted(positions.union(self._always))]


class _Compiled:
    """A signature, ready to be looked for."""

    __slots__ = ("anchored", "pattern", "signature", "typed")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.anchored = signature.pattern.startswith("^")
        self.typed = _NAMES_A_TYPE.match(signature.pattern) is not None
        self.pattern = re.compile(signature.pattern)

    def begins(self, words: str) -> bool:
        """Whether `words` begin so, and not with what they tell of somebody's text."""
        match = self.pattern.match(words)
        if match is None or self.typed:
            return match is not None
        return not lines.tells_of_data(words, match.end(), self.signature.pattern)

    def stands(self, text: str) -> bool:
        """Whether it is somewhere in `text`, and not in what that quotes."""
        return any(not lines.quotes(text, match.start()) for match in self.pattern.finditer(text))


def _soft(fitting: Sequence[_Compiled]) -> Sequence[_Compiled]:
    """Return those of the signatures that are looked for in lines that are not loud."""
    return [compiled for compiled in fitting if not compiled.signature.loud]


def _find(line: lines.Line, fitting: Sequence[_Compiled], *, plain: bool) -> Sign | None:
    if plain:
        typed = (compiled for compiled in fitting if compiled.typed and compiled.begins(line.text))
        return _sign(next(typed, None), line.text)
    sign = _first(fitting, line.text, line.heads, loose=True)
    if line.raised and (sign is None or sign.shows in {"likely", "victim"}):
        beyond = _first(fitting, line.text, tuple(lines.clauses(line)), loose=False)
        return strongest(known for known in (sign, beyond and _weaker(beyond)) if known)
    return sign


def _first(
    fitting: Sequence[_Compiled], text: str, heads: Sequence[int], *, loose: bool
) -> Sign | None:
    words = [text[head:] for head in heads]
    for compiled in fitting:
        if (
            any(map(compiled.begins, words))
            if compiled.anchored
            else loose and compiled.stands(text)
        ):
            return _sign(compiled, text)
    return None


def strongest(signs: Iterable[Sign]) -> Sign | None:
    """Return the sign that says most; of equals that of the highest priority, then the first."""
    telling = [sign for sign in signs if sign.shows != "effect"]
    return min(telling, key=_rank, default=None)


def _rank(sign: Sign) -> tuple[int, int]:
    return sign.weakness, -sign.signature.priority


@lru_cache(maxsize=8)
def matcher(signatures: tuple[Signature, ...]) -> Matcher:
    """Return the matcher of `signatures`, compiled once in this process."""
    return Matcher(signatures)


def _sign(compiled: _Compiled | None, text: str) -> Sign | None:
    if compiled is None:
        return None
    return Sign(compiled.signature, text.strip(), compiled.signature.shows)


def _weaker(sign: Sign) -> Sign:
    return Sign(sign.signature, sign.line, "likely") if sign.shows == "cause" else sign
