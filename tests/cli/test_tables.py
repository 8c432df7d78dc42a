"""What is printed of numbers that are none, and of times that can't be."""

from __future__ import annotations

import io
import json
import math

import pytest

from orchestrator.display import tables


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


def test_what_others_wrote_is_seen_in_tables_lines_and_commands() -> None:
    bad = "a\x1b]0;title\x07b\rc\x85\u2028\u202ed ✓ é"
    seen = r"a\x1b]0;title\x07b\rc\x85\u2028\u202ed ✓ é"
    out = io.StringIO()
    console = tables.Console(file=out, width=200)
    console.print(bad, markup=False)
    console.print(tables.table(("REASON",), [(bad,)]))
    console.print(tables.useful_commands([("To go on:", bad)]))
    assert out.getvalue().count(seen) == 3
    assert set("\x1b\x07\r\x85\u2028\u202e").isdisjoint(out.getvalue())
