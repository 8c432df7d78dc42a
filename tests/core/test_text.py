"""Text that is made valid is taken by any file, database or terminal, and says the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.text import shortened, storable, valid, visible

ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_any_text_can_be_kept(text: str) -> None:
    found = valid(text)
    assert found.encode().decode() == found
    assert "\0" not in found
    assert valid(found) == found


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_what_is_valid_stays_as_it_is(text: str) -> None:
    assert valid(text) == text


class Named(str):
    __slots__ = ()


def test_surrogates_and_nuls_become_escapes_and_text_of_another_type_plain() -> None:
    assert valid("a\ud83d\0b\udcff") == r"a\ud83d\x00b\udcff"
    assert type(valid(Named("plain"))) is str


def test_what_is_long_is_shortened_and_says_so() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc... (4 characters)"


@given(ANY)
def test_what_is_visible_moves_no_cursor_and_can_be_written(text: str) -> None:
    seen = visible(text)
    assert all(sign in "\n\t" or ord(sign) >= 32 for sign in seen)
    assert "\x7f" not in seen
    assert seen.encode().decode() == seen
    assert visible(seen) == seen


def test_what_is_visible_keeps_lines_and_signs_of_all_languages() -> None:
    assert visible("é ✓ 語\n\tline 2") == "é ✓ 語\n\tline 2"


@given(ANY)
def test_what_is_storable_is_what_can_be_encoded(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        assert not storable(text)
    else:
        assert storable(text)
