from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engines.detokenizer import Detokenizer, StopFilter
from jobs.engines.model_tokenizer import Tokenizer
from tests.jobs.engines.tiny_llama import save_byte_tokenizer


def decode_bytes(tokens: object) -> str:
    return bytes(tokens).decode(errors="replace")  # type: ignore[call-overload]


@given(st.text())
def test_the_texts_of_single_bytes_are_the_text(text: str) -> None:
    detokenizer = Detokenizer(decode_bytes)
    *first, final = text.encode() or b" "
    texts = [detokenizer.add(byte) for byte in first] + [detokenizer.add(final, last=True)]
    assert "".join(texts) == (text or " ")
    assert not any("\ufffd" in part for part in texts) or "\ufffd" in text


def test_bytes_that_are_no_character_are_not_held_for_ever() -> None:
    detokenizer = Detokenizer(decode_bytes)
    texts = [detokenizer.add(0xFF) for _ in range(20)]
    assert "".join(texts) == "\ufffd" * 16


@given(st.lists(st.text("ab", max_size=3)), st.lists(st.text("ab", min_size=1, max_size=4)))
def test_a_filter_passes_all_before_the_first_stop_string(
    parts: list[str], stop: list[str]
) -> None:
    stops = StopFilter(stop)
    passed = ""
    for number, part in enumerate([*parts, ""]):
        ready, stopped = stops.add(part, last=number == len(parts))
        passed += ready
        if stopped:
            break
    text = "".join(parts)
    assert text.startswith(passed)
    assert not any(word in passed for word in stop)
    assert stopped == any(word in text for word in stop)
    assert stopped or passed == text


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(save_byte_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@given(st.text("a\ufffdé日🙂", max_size=12))
def test_a_replacement_character_that_is_meant_is_a_character_like_others(
    bytewise: Tokenizer, text: str
) -> None:
    detokenizer = Detokenizer(bytewise.decode, bytewise.bytes.__getitem__)
    pieces = [detokenizer.add(token) for token in bytewise.encode(text)]
    assert "".join(pieces) == text
    assert all(piece == "" or piece in text for piece in pieces)
