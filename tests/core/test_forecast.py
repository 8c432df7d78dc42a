"""What would follow each kind of failure."""

from __future__ import annotations

from orchestrator.core.failures.kinds import Action, FailureKind
from orchestrator.core.runs.forecast import forecasts
from orchestrator.core.spec.policy import Limits
from tests.build import plan, pool, stage

K = FailureKind


def test_every_kind_that_is_a_failure_has_an_answer() -> None:
    told = dict(forecasts(plan(stage("s"), pools=("a", "b"), a=pool("a", nodes=2))))["s"]
    assert set(K) - told.keys() == {K.CANCELLED, K.TIME, K.BUDGET}
    assert told[K.INTERCONNECT] == "falls back from a to b"
    assert told[K.WORKER_LOST] == "again on a in 1 s"
    assert told[K.NODE_LOST] == "again on other nodes of a than the one that failed"
    assert told[K.USER_CODE] == "gives up"


def test_it_knows_the_stages_own_policy_and_the_pools_that_are_left() -> None:
    own = stage("s", on_failure={K.HANG: Action.RETRY}, limits=Limits(backoff=4.0))
    told = dict(forecasts(plan(own)))["s"]
    assert told[K.HANG] == "again on a in 4 s"
    assert told[K.UNSUPPORTED_OPERATOR] == "gives up (no pool left to fall back to)"
    assert told[K.CONTROLLER_LOST] == "again on a at once"
    assert told[K.NODE_LOST] == "again on a in 4 s"


def test_what_is_a_guess_alone_has_an_answer_of_its_own() -> None:
    told = dict(forecasts(plan(stage("s"), pools=("a", "b"))))["s"]
    assert told[K.SOFTWARE] == "falls back from a to b, or where it is a guess again on a in 1 s"
    assert told[K.WORKER_LOST] == "again on a in 1 s"


def test_a_policy_of_the_stage_holds_for_guesses_too() -> None:
    own = stage("s", on_failure={K.SOFTWARE: Action.STOP})
    assert dict(forecasts(plan(own)))["s"][K.SOFTWARE] == "gives up"


def test_what_pauses_says_so() -> None:
    told = dict(forecasts(plan(stage("s", limits=Limits(attempts=1)))))["s"]
    assert told[K.UNKNOWN] == "pauses (attempt 1, the last)"
    assert told[K.INTERCONNECT] == "gives up (attempt 1, the last)"
