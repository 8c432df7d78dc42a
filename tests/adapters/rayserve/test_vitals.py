"""Whether an engine is well: by its process, its own word, and the tokens that it makes."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.adapters.rayserve.vitals import Vitals, wrong_in
from orchestrator.core.engines import EngineSpec, Maker

SPEC = EngineSpec(
    name="fast", command=("x",), makers={"cpu": Maker()}, probe_seconds=10.0, deadline=60.0
)


def test_a_process_that_is_gone_is_broken_at_once() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.ended("by SIGKILL")
    assert vitals.fault == "engine 'fast' is broken: it ended by SIGKILL"


def test_three_bad_looks_in_a_row_break_it_and_a_good_one_between_does_not() -> None:
    vitals = Vitals(SPEC, 0.0)
    for now, answer in enumerate(["503", "503", "", "503", "503"]):
        vitals.looked(float(now), answer, 1.0)
    assert vitals.fault == ""
    vitals.looked(6.0, "/health answers 503", 1.0)
    assert vitals.fault == "engine 'fast' is broken: /health answers 503, 3 times in a row"


def test_it_is_asked_for_a_token_where_it_made_none_for_a_while() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.looked(9.0, "", 5.0)
    assert not vitals.is_silent(18.0)
    vitals.looked(18.0, "", 5.0)
    assert vitals.is_silent(19.0), "its health alone is no progress"
    vitals.probed(19.0, 20.0, "")
    assert not vitals.is_silent(25.0)


def test_a_hanging_engine_is_found_by_the_deadline_and_one_with_a_long_queue_is_not() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.looked(1.0, "", 5.0)
    vitals.looked(30.0, "", 6.0)
    vitals.probed(20.0, 80.0, "no answer")
    assert vitals.fault == "", "others got tokens meanwhile"
    vitals.probed(90.0, 150.0, "no answer: TimeoutError()")
    assert vitals.fault.endswith("asked for one token: no answer: TimeoutError()")


def test_two_wrong_answers_break_it_and_one_does_not() -> None:
    vitals = Vitals(SPEC, 0.0)
    vitals.probed(20.0, 21.0, "it finished by 'abort'")
    assert vitals.fault == ""
    vitals.probed(22.0, 23.0, "it finished by 'abort'")
    assert "finished by 'abort'" in vitals.fault


def test_an_engine_that_makes_no_tokens_is_asked_for_none() -> None:
    vitals = Vitals(EngineSpec(name="e", command=("x",), makers={}, probe=""), 0.0)
    assert not vitals.is_silent(1e6)


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
    ],
)
def test_an_answer_of_one_token_is_judged(body: dict[str, Any], wrong: str) -> None:
    assert wrong_in(body) == wrong
