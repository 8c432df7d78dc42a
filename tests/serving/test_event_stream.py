"""Streams of all dialects: passed on byte by byte, counted, and known when they are no answers."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.serving.gateway.event_stream import EventStream, is_aborted, usage_of

TOKEN = b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null}\n\n'
LAST = b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
ABORT = b'data: {"choices":[{"index":0,"text":"","finish_reason":"abort"}]}\n\n'
SAYS = (
    b'data: {"choices":[{"text":"\\"usage\\": {\\"prompt_tokens\\": 5} abort \\"error\\""}]}\n\n'
)
DIALECTS = {
    "openai": TOKEN + TOKEN + LAST + USAGE + DONE,
    "no space": (TOKEN + LAST + DONE).replace(b"data: ", b"data:"),
    "no done": TOKEN + LAST,
    "no last blank line": (TOKEN + LAST + DONE).rstrip(b"\n"),
    "one newline at the end": (TOKEN + LAST + DONE)[:-1],
    "comments": b": hello\n\n" + TOKEN + b": ping\n\n" + LAST + DONE,
    "crlf": (TOKEN + LAST + DONE).replace(b"\n", b"\r\n"),
    "cr": (TOKEN + LAST + DONE).replace(b"\n", b"\r"),
    "names": b"id: 1\nevent: message\nretry: 10\n" + TOKEN + LAST,
    "text like signals": TOKEN + SAYS + LAST + DONE,
}


def parts_of(text: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(at)]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_every_dialect_comes_through_as_it_is_however_it_is_cut(
    dialect: str, cuts: list[int]
) -> None:
    text = DIALECTS[dialect]
    stream = EventStream()
    passed = b"".join(map(stream.feed, parts_of(text, cuts))) + stream.end()
    assert passed == text
    assert stream.finished
    assert not stream.failure


@pytest.mark.parametrize(
    ("text", "over"),
    [
        (DIALECTS["openai"], True),
        (DIALECTS["no space"], True),
        (DIALECTS["no last blank line"], True),
        (DIALECTS["crlf"], True),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (b'data: {"type":"response.completed","response":{}}\n\n', True),
        (TOKEN + LAST, False),
        (b'data: {"choices":[{"text":"data: [DONE] \\"message_stop\\""}]}\n\n', False),
    ],
)
def test_it_is_over_when_it_says_that_nothing_more_comes(text: bytes, *, over: bool) -> None:
    stream = EventStream()
    stream.feed(TOKEN)
    stream.feed(text)
    assert stream.over is over


@given(cuts=st.lists(st.integers(0, 10_000), max_size=12), crlf=st.booleans())
def test_usage_that_the_client_did_not_ask_for_is_read_and_taken_out(
    cuts: list[int], *, crlf: bool
) -> None:
    text, kept = TOKEN * 3 + LAST + USAGE + DONE, TOKEN * 3 + LAST + DONE
    if crlf:
        text, kept = text.replace(b"\n", b"\r\n"), kept.replace(b"\n", b"\r\n")
    stream = EventStream(hides_usage=True)
    assert b"".join(map(stream.feed, parts_of(text, cuts))) + stream.end() == kept
    assert (stream.prompt_tokens, stream.completion_tokens) == (7, 3)


@given(cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_an_answer_that_the_engine_gives_up_is_a_failure_and_no_end(cuts: list[int]) -> None:
    stream = EventStream()
    passed = b""
    for part in parts_of(TOKEN + ABORT + DONE, cuts):
        passed += stream.feed(part)
        if stream.failure:
            break
    assert passed == TOKEN
    assert "abort" in stream.failure


def test_an_error_of_the_server_is_a_failure_and_one_of_the_request_is_its_answer() -> None:
    for code, fails in ((500, True), ("engine_failed", True), (None, True), (400, False)):
        event = b"data: " + json.dumps({"error": {"message": "no", "code": code}}).encode()
        stream = EventStream()
        passed = stream.feed(event + b"\n\n")
        assert (stream.failure == "no") is fails
        assert bool(passed) is not fails
        assert stream.finished is not fails


def test_events_with_data_are_counted_until_the_usage_is_told() -> None:
    stream = EventStream()
    stream.feed(b": waiting\n\n" + TOKEN + TOKEN)
    assert stream.completion_tokens == 2
    stream.feed(USAGE + DONE)
    assert stream.completion_tokens == 3


SEVERAL = (
    b'data: {"choices":[{"index":0,"finish_reason":null},{"index":1,"finish_reason":"abort"}]}'
)


@pytest.mark.parametrize(
    ("events", "choices"),
    [
        (TOKEN + ABORT, 1),
        (ABORT + TOKEN, 1),
        (SEVERAL + b"\n\n", 2),
        (TOKEN + b'data: {"error":{"message":"no \\"finish_reason\\":null"}}\n\n', 1),
        ((TOKEN + ABORT).replace(b"\n", b"\r"), 1),
    ],
)
def test_what_is_no_token_is_read_beside_tokens_too(events: bytes, choices: int) -> None:
    stream = EventStream(choices=choices)
    stream.feed(TOKEN)
    stream.feed(events)
    assert stream.failure


def test_an_event_without_an_end_is_held_back_up_to_a_bound() -> None:
    stream = EventStream()
    passed = sum(len(stream.feed(b"data: " + b"a" * 1000)) for _ in range(2000))
    assert 2_012_000 - passed < 300_000


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"usage": {"prompt_tokens": 2, "completion_tokens": 3}}, (2, 3)),
        ({"usage": {"input_tokens": 2, "output_tokens": 3}}, (2, 3)),
        ({"type": "message_start", "message": {"usage": {"input_tokens": 2}}}, (2, 0)),
        ({"response": {"usage": {"input_tokens": 2, "output_tokens": 3}}}, (2, 3)),
        ({"usage": {"prompt_tokens": 2, "total_tokens": 2}}, (2, 0)),
        ({"usage": None}, None),
        ({"usage": "much"}, None),
        ({"message": "text"}, None),
    ],
)
def test_usage_is_read_in_all_shapes(told: dict, used: tuple[int, int] | None) -> None:
    assert usage_of(told) == used


def test_a_whole_answer_that_was_given_up_is_known_and_one_that_says_abort_is_not() -> None:
    assert is_aborted(b'{"choices":[{"text":"a","finish_reason":"abort"}]}')
    assert not is_aborted(b'{"choices":[{"text":"abort","finish_reason":"stop"}]}')
    assert not is_aborted(b'{"choices":[{"text":"a","finish_reason":"stop"}]}')
