"""Which words must be in a text, so that a regular expression can fit."""

from __future__ import annotations

import re

import pytest

from orchestrator.core.failures.literals import Haystack, needles
from tests.build import documented


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("Address already in use", {"address already in use"}),
        ("^CUDA( driver)? error", {" error"}),
        ("(?i:Foo|bar baz)", {"foo", "bar baz"}),
        (r"\bXid \d+", {"xid "}),
        ("(?:ab|cde) failed", {" failed"}),
        ("(?:lost)+", {"lost"}),
        (r"E[A-Z]\d{4}", None),
        ("a|bcd", None),
        ("(?:abc)?", None),
    ],
)
def test_the_longest_words_that_must_be_there_are_found(
    pattern: str, words: set[str] | None
) -> None:
    assert needles(pattern) == words


def test_a_haystack_tells_what_stands_for_the_words_in_a_text() -> None:
    known = Haystack({"error": [1, 2], "lost": [3], "xid": [4]})
    assert known.matches("the device is lost") == {3}
    assert known.matches("an error, xid 79") == {1, 2, 4}
    assert known.matches("er") == set()


def test_every_shipped_signature_is_looked_for_by_words() -> None:
    without = [one.name for one in documented() if needles(one.pattern) is None]
    assert not without


def test_every_shipped_signature_is_named_has_a_source_and_compiles() -> None:
    for one in documented():
        assert one.name
        assert one.source, one.name
        assert re.compile(one.pattern)
