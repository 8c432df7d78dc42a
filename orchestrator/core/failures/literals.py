"""Which words a text must have, so that a regular expression can fit at all.

To look for some words in a line takes a hundredth of what a hundred expressions take, and most
lines of a log have none of them.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

SHORTEST = 3
# Letters by how often they stand in words: three of which some are rare are seldom there in vain.
_OFTEN = "etaoinsrlpdcmu "
# The parser of `re` has no public name; what it yields has not changed since Python 3.7.
_parser: Any = importlib.import_module("re._parser")


def needles(pattern: str) -> frozenset[str] | None:
    """Return words, in lower case, of which each text that `pattern` fits has at least one.

    `None` where it can fit without any word that is long enough.
    """
    return _of(_parser.parse(pattern))


class Haystack:
    """Many words, to be looked for in one text after the other, with what each stands for.

    The letters of a text are taken by three; only words that have such three are looked for.
    """

    def __init__(self, words: Mapping[str, Sequence[int]]) -> None:
        """Sort the words by three rare letters of theirs."""
        self._by_three: dict[str, list[tuple[str, Sequence[int]]]] = defaultdict(list)
        for word, places in words.items():
            self._by_three[_three(word)].append((word, places))

    def matches(self, text: str) -> set[int]:
        """Return what the words stand for that are in `text`, which is in lower case."""
        threes = {text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1)}
        return {
            place
            for three in threes & self._by_three.keys()
            for word, places in self._by_three[three]
            if word in text
            for place in places
        }


def _three(word: str) -> str:
    threes = (word[at : at + SHORTEST] for at in range(len(word) - SHORTEST + 1))
    return min(threes, key=lambda three: sum(letter in _OFTEN for letter in three))


def _of(items: Iterable[tuple[Any, Any]]) -> frozenset[str] | None:
    return max(_candidates(items), key=_worth, default=None)


def _worth(words: frozenset[str]) -> tuple[int, int]:
    return min(map(len, words)), -len(words)


def _candidates(items: Iterable[tuple[Any, Any]]) -> Iterator[frozenset[str]]:
    """Yield sets of words, of each of which one must be there."""
    run = ""
    for kind, value in items:
        name = str(kind)
        if name == "LITERAL":
            run += chr(value).lower()
            continue
        if name == "AT":  # takes up no letter
            continue
        yield from _word(run)
        run = ""
        inner = _inside(name, value)
        if inner is not None:
            yield inner
    yield from _word(run)


def _word(run: str) -> Iterator[frozenset[str]]:
    if len(run) >= SHORTEST:
        yield frozenset({run})


def _inside(name: str, value: Any) -> frozenset[str] | None:  # noqa: ANN401 - as it is parsed
    if name == "SUBPATTERN":
        return _of(value[3])
    if name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
        return _of(value[2]) if value[0] else None
    if name != "BRANCH":
        return None
    branches = [_of(branch) for branch in value[1]]
    if any(words is None for words in branches):
        return None
    return frozenset(word for words in branches if words for word in words)
