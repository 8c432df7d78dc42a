"""What is printed of numbers that are none, and of times that can't be."""

from __future__ import annotations

import json
import math

import pytest

from orchestrator.cli import tables


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (None, "-"),
        (0.0, "0s"),
        (59.9, "59s"),
        (187.0, "3m 07s"),
        (7500.0, "2h 05m"),
        (-3600.0, "0s"),
        (math.nan, "-"),
        (math.inf, "ages"),
        (-math.inf, "0s"),
        (1e308, "ages"),
    ],
)
def test_any_time_span_has_words(seconds: float | None, says: str) -> None:
    assert tables.duration(seconds) == says


def test_json_is_what_every_parser_reads() -> None:
    said = {"loss": math.nan, "all": [math.inf, (1.5, None)], "deep": {"x": -math.inf}, "ok": "ä"}
    text = tables.as_json(said)
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == {"loss": None, "all": [None, [1.5, None]], "deep": {"x": None}, "ok": "ä"}
