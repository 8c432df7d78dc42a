"""Calls in the text of an answer, whole and in pieces."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.serving.replica.tool_calls import joined, reader

ANSWER = (
    "Let me see. <tool_call>\n"
    '{"name": "weather", "arguments": {"city": "Zürich", "days": 2}}\n</tool_call>\n'
    '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
)


def read(chosen: str, parts: list[str]) -> tuple[str, list[tuple[str, Any]], str]:
    found = reader(chosen)
    content, deltas = "", []
    for place, part in enumerate(parts):
        text, calls = found.add(part, last=place == len(parts) - 1)
        content += text
        deltas += calls
    told = joined(deltas)
    assert all(re.fullmatch("call_[0-9a-f]{24}", call["id"]) for call in told)
    named = [(call["function"]["name"], call["function"]["arguments"]) for call in told]
    return content, named, found.finish


def parted(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@given(st.lists(st.integers(0, 1000)))
def test_calls_are_found_wherever_the_pieces_end(cuts: list[int]) -> None:
    content, calls, finish = read("auto", parted(ANSWER, cuts))
    assert content.strip() == "Let me see."
    assert [name for name, _ in calls] == ["weather", "time"]
    assert json.loads(calls[0][1]) == {"city": "Zürich", "days": 2}
    assert finish == "tool_calls"


@given(st.text(alphabet="<tol_ca>/{} x"), st.lists(st.integers(0, 1000)))
def test_what_is_no_call_stays_text(text: str, cuts: list[int]) -> None:
    assert read("auto", parted(text, cuts)) == (text, [], "stop")


def test_a_call_that_is_cut_or_broken_is_text() -> None:
    for text in (
        '<tool_call>{"name": "weather"',
        "<tool_call>not json</tool_call> so",
        '<tool_call>{"arguments": {}}</tool_call>',
    ):
        assert read("auto", [text]) == (text, [], "stop")


def test_a_required_call_is_a_list_of_calls() -> None:
    text = '[{"name": "time", "arguments": {"zone": "UTC"}}]'
    assert read("required", [text[:9], text[9:]]) == (
        "",
        [("time", '{"zone": "UTC"}')],
        "tool_calls",
    )
    assert read("required", [text[:9]]) == (text[:9], [], "stop")


def test_a_named_call_streams_its_arguments() -> None:
    assert read("time", ["", '{"zone"', ': "UTC"}']) == ("", [("time", '{"zone": "UTC"}')], "stop")
