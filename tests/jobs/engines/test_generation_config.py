"""What `generation_config.json` says holds where it makes sense, and is refused where not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.engines.generation_config import FILE, defaults_of, ends_in


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"temperature": -3}', "temperature=-3 in .* should be 0 or more"),
        ('{"temperature": "hot"}', "temperature='hot' in .* should be 0 or more"),
        ('{"temperature": Infinity}', "temperature=inf in .* should be 0 or more"),
        ('{"top_p": 0}', "top_p=0 in .* should be over 0, and 1 at most"),
        ('{"top_p": 1.5}', "top_p=1.5 in .* should be over 0, and 1 at most"),
        ('{"top_k": -5}', "top_k=-5 in .* should be a whole number, -1 or more"),
        ('{"top_k": 0.5}', "top_k=0.5 in .* should be a whole number, -1 or more"),
        ('{"top_k": true}', "top_k=True in .* should be a whole number, -1 or more"),
        ('{"min_p": NaN}', "min_p=nan in .* should be 0 to 1"),
        ('{"repetition_penalty": 0}', "repetition_penalty=0 in .* should be over 0"),
        ('{"max_new_tokens": 0}', "max_new_tokens=0 in .* should be a whole number over 0"),
        ("[]", "is no JSON object"),
        ("{", "Expecting property name"),
    ],
)
def test_what_would_fail_every_answer_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=words):
        defaults_of(tmp_path)


def test_what_is_not_said_or_says_nothing_is_left_out(tmp_path: Path) -> None:
    assert defaults_of(tmp_path) == {}
    (tmp_path / FILE).write_text('{"temperature": null, "top_k": 50.0, "max_length": 5}')
    assert defaults_of(tmp_path) == {"top_k": 50.0}


def test_ends_are_one_several_or_none() -> None:
    assert [ends_in(one) for one in (None, 7, [5, None, 9], [])] == [
        frozenset(),
        {7},
        {5, 9},
        frozenset(),
    ]
    for wrong in ("7", ["7"], [True], 7.0):
        with pytest.raises(ValueError, match=re.escape(f"eos_token_id={wrong!r} of the model")):
            ends_in(wrong)
