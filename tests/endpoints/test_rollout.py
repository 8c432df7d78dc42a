"""A revision takes over in steps, and whatever fails the old one serves all traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.core.endpoints.life import Deployment, RevisionAdded, RevisionState, TrafficMoved
from orchestrator.core.endpoints.promotion import TrafficFigures
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.hardware import Format
from orchestrator.endpoints.revisions import end
from orchestrator.endpoints.rollout import Rollouts
from orchestrator.messages import Points, Succeeded
from tests.build import REF, deployment
from tests.endpoints.bench import EACH, FIRST, GOOD, RULES, Bench, failure
from tests.interposed import Interposed


def test_the_first_revision_gets_all_traffic_once_the_gateway_knows_it(bench: Bench) -> None:
    assert bench.shares == {1: 100}
    assert bench.store.replicas() == {("chat", 1): ("http://chat.r1/chat.r1",)}
    blind = Bench()
    blind.traffic.ready = False
    kind, evidence = failure(blind.go(blind.asked("a", 1)))
    assert kind is FailureKind.SERVING
    assert "does not answer within 60 s" in evidence
    assert (blind.replicas.there, blind.shares) == ({}, {})


def test_a_revision_takes_over_step_by_step_and_the_old_one_is_retired(bench: Bench) -> None:
    said = bench.go(bench.asked("b", 2))
    moves = bench.store.endpoint("chat").moves
    wanted = [{1: 100}, {1: 90, 2: 10}, {1: 50, 2: 50}, {2: 100}]
    assert [dict(move.shares) for move in moves] == wanted
    assert [later.at - move.at for move, later in pairwise(moves[1:])] == [10.0, 10.0]
    assert bench.states == {"r1": "retired", "r2": "ready"}
    assert list(bench.replicas.there) == ["chat.r2"]
    assert isinstance(said[-1], Succeeded)
    assert said[-1].metrics["revision"] == 2.0
    assert said[-1].metrics["rollout_seconds"] >= 30.0
    points = [message.values["rollout/share"] for message in said if isinstance(message, Points)]
    assert points == [10.0, 50.0, 100.0]


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (replace(GOOD, errors=20), "20.0% of 100 requests failed, 0.0% at the old"),
        (replace(GOOD, statuses={200: 70.0, 400: 30.0}), "refused (most by 400), 0.0% at the"),
        (
            replace(GOOD, first=replace(FIRST, sum=30.0)),
            "first token is 300.0 ms in the mean, 100.0 ms",
        ),
        (
            replace(GOOD, each=replace(EACH, sum=5.0)),
            "time per token is 50.0 ms in the mean, 10.0",
        ),
    ],
)
def test_a_breach_gives_the_traffic_back_and_says_why(
    bench: Bench, new: TrafficFigures, why: str
) -> None:
    asked = bench.asked("b", 2)
    assert bench.go(asked, 12.0)
    assert bench.shares == {1: 50, 2: 50}
    bench.traffic.told = {"r1": GOOD, "r2": new}
    kind, evidence = failure(bench.on(asked))
    assert kind is FailureKind.ROLLED_BACK
    assert evidence.startswith("chat.r2: at 50 %: ")
    assert why in evidence
    assert evidence.endswith("r1 serves on")
    assert (bench.shares, bench.states) == ({1: 100}, {"r1": "ready", "r2": "retired"})
    assert list(bench.replicas.there) == ["chat.r1"]


def test_a_rollout_holds_while_the_gateway_is_away_and_goes_on_with_it(bench: Bench) -> None:
    bench.traffic.away = True
    asked = bench.asked("b", 2)
    bench.go(asked, 120.0)
    assert bench.shares == {1: 90, 2: 10}
    bench.traffic.away = False
    assert isinstance(bench.on(asked)[-1], Succeeded)


def test_a_gateway_that_stays_away_ends_a_rollout_in_the_end(bench: Bench) -> None:
    bench.traffic.away = True
    kind, evidence = failure(bench.go(bench.asked("b", 2), 700.0))
    assert kind is FailureKind.ROLLED_BACK
    assert "no verdict after" in evidence
    assert bench.shares == {1: 100}


def test_what_can_not_be_deployed_leaves_the_old_revision_alone(bench: Bench) -> None:
    kind, evidence = failure(bench.go(bench.asked("broken", 2)))
    assert (kind, evidence) == (FailureKind.SERVING, "no kernel")
    assert (bench.shares, bench.states) == ({1: 100}, {"r1": "ready", "r2": "retired"})


def test_a_cluster_that_does_not_answer_is_a_failure_and_changes_nothing(bench: Bench) -> None:
    before = bench.store.endpoint("chat")
    bench.replicas.away = True
    kind, evidence = failure(bench.go(bench.asked("b", 2)))
    assert (kind, evidence) == (FailureKind.SERVING, "the cluster does not answer")
    assert bench.store.endpoint("chat") == before
    bench.replicas.away = False
    asked = bench.asked("b", 3)
    bench.rollouts.start(asked)
    bench.rollouts.cancel(asked.key)
    assert bench.store.endpoint("chat") == before


def test_two_who_add_a_revision_at_once_both_get_one(bench: Bench) -> None:
    def meanwhile(*_: object) -> None:
        if bench.store.endpoint("chat").next_number == 2:
            other = RevisionAdded(2, deployment("chat", revision=2, run="other"))
            bench.store.follow(bench.store.endpoint("chat"), [other], 1.0)

    store = Interposed(bench.store, follow=meanwhile)
    bench.rollouts = Rollouts(bench.replicas, store, bench.traffic, bench.clock)  # type: ignore[arg-type]
    said = bench.go(bench.asked("b", 2))
    assert isinstance(said[-1], Succeeded)
    assert said[-1].metrics["revision"] == 3.0


def test_the_same_model_must_answer_probes_alike_before_it_gets_traffic(bench: Bench) -> None:
    bench.traffic.answer_of["chat.r2"] = "garbage"
    kind, evidence = failure(bench.go(bench.asked("b", 2)))
    assert kind is FailureKind.ROLLED_BACK
    assert "0 of 8 probes are answered alike, 90% are wanted; 'garbage'" in evidence
    assert [dict(move.shares) for move in bench.store.endpoint("chat").moves] == [{1: 100}]


def test_log_probabilities_are_compared_where_both_tell_them(bench: Bench) -> None:
    """Greedy answers part ways at a tie: with equal log-probabilities that is no difference."""
    bench.traffic.answer_of["chat.r2"] = "another way"
    bench.traffic.scores_of = {"chat.r1": [-1.0, -2.0, -0.5], "chat.r2": [-1.02, -1.97, -0.51]}
    assert isinstance(bench.go(bench.asked("b", 2))[-1], Succeeded)
    bench.traffic.scores_of |= {"chat.r3": [-4.0, -0.1, -6.0]}
    kind, evidence = failure(bench.go(bench.asked("a", 3)))
    assert kind is FailureKind.ROLLED_BACK
    assert "nats a token apart" in evidence


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_route_that_the_new_revision_alone_fails_keeps_it_from_any_traffic(
    bench: Bench, path: str
) -> None:
    bench.traffic.status_of["chat.r2" + path] = 400
    kind, evidence = failure(bench.go(bench.asked("b", 2)))
    assert kind is FailureKind.ROLLED_BACK
    assert f"it fails 4 of 4 probes of {path}: 400" in evidence
    assert [dict(move.shares) for move in bench.store.endpoint("chat").moves] == [{1: 100}]


def test_an_engine_that_predicts_is_asked_what_it_takes_or_whether_it_is_ready(
    bench: Bench,
) -> None:
    bench.traffic.predictors = {"chat.r1", "chat.r2", "chat.r3"}
    assert isinstance(bench.go(bench.asked("b", 2))[-1], Succeeded)
    assert {probe.path for _, probe in bench.traffic.asked[1:]} == {"/ready"}
    asked = bench.asked("c", 3)
    image = {"pixels": [[0.0]]}
    asked = replace(asked, endpoint=replace(asked.endpoint, probe=image))
    bench.traffic.asked.clear()
    bench.traffic.status_of["chat.r3/v1/predict"] = 500
    kind, evidence = failure(bench.go(asked))
    assert kind is FailureKind.ROLLED_BACK
    assert "it fails 1 of 1 probes of /v1/predict: 500" in evidence
    assert bench.traffic.asked[0][1].body == image


def test_what_only_embeds_is_asked_for_embeddings_and_compared_by_them(bench: Bench) -> None:
    bench.traffic.vector_of = {f"chat.r{n}": [1.0, 0.0] for n in (1, 2)}
    bench.traffic.vector_of["chat.r3"] = [1.0, 1.0]
    assert isinstance(bench.go(bench.asked("b", 2))[-1], Succeeded)
    kind, evidence = failure(bench.go(bench.asked("c", 3)))
    assert kind is FailureKind.ROLLED_BACK
    assert "embeddings of 4 texts are 0.785 radians apart" in evidence


def test_a_revision_that_only_embeds_does_not_take_the_place_of_one_that_answers(
    bench: Bench,
) -> None:
    bench.traffic.vector_of = {"chat.r2": [1.0, 0.0]}
    kind, evidence = failure(bench.go(bench.asked("b", 2)))
    assert kind is FailureKind.ROLLED_BACK
    assert "it answers none of 8 probes: 404" in evidence


def test_an_old_revision_that_answers_nothing_is_compared_with_nobody(bench: Bench) -> None:
    bench.traffic.status_of["chat.r1"] = 500
    assert isinstance(bench.go(bench.asked("b", 2))[-1], Succeeded)
    assert (bench.shares, bench.states["r1"]) == ({2: 100}, "retired")


def test_what_was_trained_once_is_compared_in_every_format_within_the_gates_limits(
    bench: Bench,
) -> None:
    def in_format(form: Format, attempt: int, limits: Mapping[Format, float]) -> Deployment:
        model = replace(REF, digest=str(attempt) * 64)
        made = bench.asked("b", attempt)
        return replace(made, format=form, model=model, trained="t", limits=limits)

    assert isinstance(bench.go(in_format("bf16", 2, {}))[-1], Succeeded)
    scores = [-1.0, -2.0, -0.5]
    near = [value - 0.2 for value in scores]
    bench.traffic.scores_of = {"chat.r2": scores, "chat.r3": near, "chat.r4": near}
    kind, evidence = failure(bench.go(in_format("fp8", 3, {"bf16": 1e-4, "fp8": 1e-3})))
    assert kind is FailureKind.ROLLED_BACK
    assert "are 0.2 nats a token apart, 0.0589 are allowed" in evidence
    assert isinstance(bench.go(in_format("fp8", 4, {}))[-1], Succeeded)


def test_what_the_gate_derived_for_a_model_is_closer_than_what_it_allows_any(bench: Bench) -> None:
    def derived(attempt: int, kl_mean: float | None) -> Deployment:
        return replace(bench.asked("b", attempt), limits={"bf16": 0.02}, kl_mean=kl_mean)

    assert isinstance(bench.go(derived(2, 0.0002))[-1], Succeeded)
    scores = [-1.0, -2.0, -0.5]
    near = [value - 0.1 for value in scores]
    bench.traffic.scores_of = {"chat.r2": scores, "chat.r3": near, "chat.r4": near}
    kind, evidence = failure(bench.go(derived(3, 0.0002)))
    assert kind is FailureKind.ROLLED_BACK
    assert "are 0.1 nats a token apart, 0.04 are allowed" in evidence
    assert isinstance(bench.go(derived(4, None))[-1], Succeeded)


def test_how_sure_a_rollout_must_be_and_how_long_it_may_doubt_are_settings(bench: Bench) -> None:
    hasty = replace(RULES, doubt=0.0, requests=10_000)
    kind, evidence = failure(bench.go(bench.asked("b", 2, hasty), 60.0))
    assert kind is FailureKind.ROLLED_BACK
    assert "no verdict after" in evidence


def test_a_route_that_neither_has_keeps_nobody_back(bench: Bench) -> None:
    for name in ("chat.r1", "chat.r2"):
        bench.traffic.status_of[name + "/v1/chat/completions"] = 400
    assert isinstance(bench.go(bench.asked("b", 2))[-1], Succeeded)
    assert (bench.shares, bench.states["r1"]) == ({2: 100}, "retired")


def test_a_replica_that_begins_to_fail_at_no_traffic_at_all_is_found_by_probes(
    bench: Bench,
) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 5.0)
    bench.traffic.status_of["chat.r2"] = 500
    kind, evidence = failure(bench.on(asked, 20.0))
    assert kind is FailureKind.ROLLED_BACK
    assert "requests failed" in evidence


def test_figures_in_doubt_take_the_share_away_and_copies_give_it_back(bench: Bench) -> None:
    asked = bench.asked("b", 2)
    bench.traffic.told = {"r1": GOOD, "r2": GOOD}
    bench.go(asked, 5.0)
    more = replace(GOOD, requests=110.0, statuses={200: 110.0})
    bench.traffic.told = {"r1": more, "r2": replace(more, errors=1.0, statuses={200: 109.0})}
    bench.on(asked, 10.0)
    life = bench.store.endpoint("chat")
    assert (life.shares, life.shadow) == ({1: 100}, 2)
    assert "copies alone" in life.moves[-1].reason
    many = replace(GOOD, requests=400.0, statuses={200: 400.0})
    bench.traffic.told = {"r1": many, "r2": replace(many, errors=1.0, statuses={200: 399.0})}
    assert isinstance(bench.on(asked)[-1], Succeeded)
    assert bench.shares == {2: 100}


def test_without_steps_a_revision_waits_for_somebody_to_move_traffic(bench: Bench) -> None:
    said = bench.go(bench.asked("b", 2, replace(RULES, steps=())))
    assert isinstance(said[-1], Succeeded)
    assert (bench.shares, bench.states) == ({1: 100}, {"r1": "ready", "r2": "ready"})


def test_a_shadow_gets_copies_before_any_traffic_and_may_fail_there(bench: Bench) -> None:
    asked = bench.asked("b", 2, replace(RULES, shadow=True))
    bench.go(asked, 5.0)
    life = bench.store.endpoint("chat")
    assert (life.shares, life.shadow) == ({1: 100}, 2)
    bench.traffic.told = {"r1": GOOD, "r2": replace(GOOD, errors=50, statuses={200: 50.0})}
    kind, evidence = failure(bench.on(asked))
    assert kind is FailureKind.ROLLED_BACK
    assert "at 0 %: 50.0% of 100 requests failed" in evidence
    bench.traffic.told = {}
    assert isinstance(bench.go(bench.asked("c", 3, replace(RULES, shadow=True)))[-1], Succeeded)
    assert bench.store.endpoint("chat").shadow is None
    quiet = bench.go(bench.asked("b", 4, replace(RULES, shadow=True, steps=())))
    assert isinstance(quiet[-1], Succeeded)
    assert bench.shares == {3: 100}


def test_somebody_who_takes_its_traffic_away_ends_the_rollout(bench: Bench) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 5.0)
    bench.store.follow(bench.store.endpoint("chat"), [TrafficMoved({1: 100}, "by ann")], 1.0)
    kind, evidence = failure(bench.on(asked))
    assert kind is FailureKind.ROLLED_BACK
    assert "somebody took its traffic away" in evidence
    assert bench.states["r2"] == "retired"


def test_somebody_who_shares_otherwise_has_the_last_word(bench: Bench) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 5.0)
    bench.store.follow(bench.store.endpoint("chat"), [TrafficMoved({1: 30, 2: 70}, "ann")], 1.0)
    assert isinstance(bench.on(asked)[-1], Succeeded)
    assert (bench.shares, bench.states["r1"]) == ({1: 30, 2: 70}, "ready")


def test_a_cancelled_rollout_gives_the_traffic_back(bench: Bench) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 12.0)
    bench.rollouts.cancel(asked.key)
    assert (bench.shares, bench.states["r2"]) == ({1: 100}, "retired")
    assert bench.rollouts.poll(asked.key) == ()


@pytest.mark.parametrize(("seconds", "new"), [(5.0, 10), (12.0, 50)])
def test_a_rollout_whose_controller_is_lost_is_found_and_taken_back(
    bench: Bench, seconds: float, new: int
) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, seconds)
    assert bench.shares == {1: 100 - new, 2: new}
    bench.again().cancel(asked.key)
    assert (bench.shares, bench.states["r2"]) == ({1: 100}, "retired")


def test_who_takes_over_from_the_dead_gets_all_traffic_at_once(bench: Bench) -> None:
    bench.store.note_replicas("chat", 1, ())
    said = bench.go(bench.asked("b", 2))
    assert isinstance(said[-1], Succeeded)
    assert [dict(move.shares) for move in bench.store.endpoint("chat").moves] == [
        {1: 100},
        {2: 100},
    ]


def test_a_revision_that_went_with_its_cluster_leads_until_another_serves(bench: Bench) -> None:
    bench.replicas.there.clear()
    bench.store.note_replicas("chat", 1, ())
    failure(bench.go(bench.asked("broken", 2)))
    assert (bench.shares, bench.states) == ({1: 100}, {"r1": "ready", "r2": "retired"})
    assert isinstance(bench.go(bench.asked("b", 3))[-1], Succeeded)
    assert bench.shares == {3: 100}
    assert bench.store.endpoint("chat").revisions[1].reason == "replaced by r3"


def test_an_endpoint_that_ended_has_no_revision_left(bench: Bench) -> None:
    bench.go(bench.asked("b", 2), 5.0)
    end(bench.store, bench.store.endpoint("chat"), "enough", 2000.0)
    assert bench.store.endpoint("chat").live == ()
    assert bench.store.replicas() == {}
    assert all(
        revision.state is RevisionState.RETIRED
        for revision in bench.store.endpoint("chat").revisions.values()
    )


def test_one_that_is_to_help_gets_what_finds_no_room_alone_and_tells_its_price(
    bench: Bench,
) -> None:
    asked = bench.asked("b", 2, replace(RULES, overflow=True))
    priced = replace(asked, pool=replace(asked.pool, price_per_hour=2.5))
    said = bench.go(priced)
    assert isinstance(said[-1], Succeeded)
    life = bench.store.endpoint("chat")
    assert (life.shares, life.overflow) == ({1: 100}, 2)
    assert bench.states == {"r1": "ready", "r2": "ready"}
    assert life.moves[-1].reason == "overflow to r2 on b, $2.50 an hour"


def test_one_that_is_to_help_must_answer_probes_as_the_others_do(bench: Bench) -> None:
    bench.traffic.answer_of = {"chat.r2": "nonsense"}
    kind, _ = failure(bench.go(bench.asked("b", 2, replace(RULES, overflow=True))))
    assert kind is FailureKind.ROLLED_BACK
    assert bench.store.endpoint("chat").overflow is None
