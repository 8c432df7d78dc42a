"""Whether an engine is well: by its process, its own word, and the tokens that it makes."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.adapters.rayserve.engine_figures import Figures
from orchestrator.adapters.rayserve.vitals import Vitals, wrong_in
from orchestrator.core.spec.engines import EngineSpec, Maker

SPEC = EngineSpec(
    name="fast", command=("x",), makers={"cpu": Maker()}, probe_seconds=10.0, deadline=60.0
)


def test_a_process_that_is_gone_is_broken_at_once() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.ended("by SIGKILL")
    assert vitals.fault == "engine 'fast' is broken: it ended by SIGKILL"


RANK, OTHER = frozenset({("engine", "0")}), frozenset({("engine", "1")})


def busy(tokens: float | None, running: float = 0.0) -> Figures:
    ranks = {} if tokens is None else {RANK: (running, tokens)}
    return Figures(running=running, tokens=tokens, ranks=ranks)


def test_three_bad_looks_in_a_row_break_it_and_a_good_one_between_does_not() -> None:
    vitals = Vitals(SPEC, 0.0)
    for now, answer in enumerate(["503", "503", "", "503", "503"]):
        vitals.looked(float(now), answer, busy(1.0))
    assert vitals.fault == ""
    vitals.looked(6.0, "/health answers 503", busy(1.0))
    assert vitals.fault == "engine 'fast' is broken: /health answers 503, 3 times in a row"


def test_it_is_asked_for_a_token_again_and_again_though_it_makes_many() -> None:
    vitals = Vitals(SPEC, 0.0)
    assert not vitals.is_due(9.0)
    vitals.looked(9.0, "", busy(5.0))
    assert vitals.is_due(10.0), "who computes rubbish makes tokens too"
    vitals.note_token(10.0, 11.0, "")
    assert not vitals.is_due(20.0)
    assert vitals.is_due(21.0)


def test_it_is_asked_at_once_where_it_says_itself_that_an_answer_was_wrong() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.looked(1.0, "", Figures(suspect=1.0))
    assert vitals.is_due(1.0)
    vitals.note_token(1.0, 1.5, "")
    vitals.looked(2.0, "", Figures(suspect=1.0))
    assert not vitals.is_due(2.0), "one prompt was to blame"


def test_a_hanging_engine_is_found_by_the_deadline_and_one_with_a_long_queue_is_not() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.looked(1.0, "", busy(5.0))
    vitals.looked(30.0, "", busy(6.0))
    vitals.note_token(20.0, 80.0, "no answer")
    assert vitals.fault == "", "others got tokens meanwhile"
    vitals.note_token(90.0, 150.0, "no answer: TimeoutError()")
    assert vitals.fault.endswith("asked for one token: no answer: TimeoutError()")


def test_requests_that_run_and_get_no_token_break_it_by_the_deadline() -> None:
    vitals = Vitals(SPEC, 0.0)
    for now in range(100):
        vitals.looked(float(now), "", busy(5.0))
        vitals.looked(now + 0.5, "", busy(float(now), running=1.0))
    assert vitals.fault == "", "it is idle, or it moves"
    for now in range(100, 161):
        vitals.looked(float(now), "", busy(99.0, running=2.0))
    assert vitals.fault == (
        "engine 'fast' is broken: 2 requests run, and none has got a token for 60 s"
    )


def test_one_core_that_stands_still_breaks_an_engine_whose_others_move() -> None:
    vitals = Vitals(SPEC, 0.0)
    for now in range(61):
        ranks = {RANK: (4.0, float(now)), OTHER: (1.0, 5.0)}
        vitals.looked(float(now), "", Figures(running=5.0, tokens=now + 5.0, ranks=ranks))
    assert vitals.fault.endswith("1 requests run, and none has got a token for 60 s")


def test_an_engine_that_tells_no_figures_is_not_taken_for_stalled() -> None:
    vitals = Vitals(SPEC, 0.0)
    for now in range(100):
        vitals.looked(float(now), "", busy(None, running=1.0))
    assert vitals.fault == ""


def test_two_wrong_answers_break_it_and_one_does_not() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.looked(20.5, "", busy(5.0))
    vitals.note_token(20.0, 21.0, "it finished by 'abort'")
    assert vitals.fault == ""
    assert vitals.is_due(21.0), "it is asked at once again"
    vitals.note_token(22.0, 23.0, "it finished by 'abort'")
    assert "finished by 'abort'" in vitals.fault


def answer(finish: str = "length", **logprobs: Any) -> dict[str, Any]:
    return {"choices": [{"text": "x", "finish_reason": finish, "logprobs": logprobs or None}]}


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (answer(), ""),
        (answer(token_logprobs=[-0.5]), ""),
        (answer(token_logprobs=[float("nan")]), "a log-probability is nan"),
        (answer(token_logprobs=[None]), "a log-probability is None"),
        (answer("abort"), "it finished by 'abort'"),
        ({"choices": []}, "the answer has no choices"),
        ({}, "the answer has no choices"),
        (["x"], "the answer is no object: \"['x']\""),
        ({"data": [{"embedding": [0.5, 1]}]}, ""),
        ({"data": [{"embedding": "AAAA"}]}, ""),
        ({"data": [{"embedding": [0.5, float("nan")]}]}, "a number of an embedding is nan"),
        ({"data": []}, "the answer has no embedding"),
    ],
)
def test_an_answer_of_one_token_is_judged(body: Any, wrong: str) -> None:
    assert wrong_in(body) == wrong
