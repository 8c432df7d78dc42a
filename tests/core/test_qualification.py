"""Verdicts on pools: what they follow from, how long they hold, what they keep out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    Event,
    RunCancelled,
    RunFailed,
    RunStarted,
    StageFailed,
)
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.stages import Endpoint, Needs
from orchestrator.core.trust import qualification
from orchestrator.core.trust.qualification import (
    Finding,
    Rules,
    Standing,
    Status,
    Verdict,
    identity,
    judge,
    unknown,
    verdict_of,
    vet,
)
from orchestrator.core.trust.trial import failures_of
from tests.build import accelerator, failure, header, plan, pool, stage

GOOD = Finding(check="products", subject="float32", status=Status.PASSED)
SLOW = Finding(check="pace", subject="work", status=Status.LIMITED, note="rank 1 is slow")
GAP = Finding(check="operators", subject="aten::silu", status=Status.FAILED, note="missing")
BACKWARD = replace(GAP, subject="aten::silu_backward", roles=(Role.TRAIN,))


def verdict(on: Pool, standing: Standing = Standing.REFUSED, **changes: object) -> Verdict:
    facts = {"reasons": ("EI0002", "slow"), "run": "q-1", "at": 0.0, "until": 10.0, **changes}
    known = {"pool": on.name, "role": Role.TRAIN, "identity": identity(on), **facts}
    return Verdict(standing=standing, **known)  # type: ignore[arg-type]


# --- judging ------------------------------------------------------------------------------------


def test_a_pool_without_a_flaw_is_qualified() -> None:
    assert judge(Role.TRAIN, [GOOD]) == (Standing.QUALIFIED, ())


def test_a_limit_is_named() -> None:
    said = (Standing.LIMITED, ("pace work: rank 1 is slow",))
    assert judge(Role.TRAIN, [GOOD, SLOW]) == said


def test_a_gap_refuses_the_roles_that_it_matters_to_and_all_gaps_are_named() -> None:
    standing, reasons = judge(Role.TRAIN, [GAP, SLOW, BACKWARD])
    assert standing is Standing.REFUSED
    assert reasons == ("operators aten::silu: missing", "operators aten::silu_backward: missing")
    assert judge(Role.SERVE, [BACKWARD]) == (Standing.QUALIFIED, ())


def test_an_attempt_that_broke_refuses_the_pool() -> None:
    hang = failures_of(broke(FailureKind.HANG, evidence="no sign"))
    assert hang is not None
    said = ("s hang: no sign (rank 0, step 40)",)
    assert judge(Role.SERVE, [GOOD, *hang]) == (Standing.REFUSED, said)


def test_a_finding_without_a_note_tells_its_status() -> None:
    assert GOOD.reason == "products float32: passed"


# --- how long it holds --------------------------------------------------------------------------


def test_a_verdict_holds_for_its_time_and_its_role() -> None:
    one = verdict(pool("a"))
    assert verdict_of(pool("a"), Role.TRAIN, [one], 9.9) == one
    assert verdict_of(pool("a"), Role.TRAIN, [one], 10.0) is None
    assert verdict_of(pool("a"), Role.SERVE, [one], 0.0) is None
    assert verdict_of(pool("b"), Role.TRAIN, [one], 0.0) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": 2},
        {"devices_per_node": 4},
        {"chip": accelerator(name="Chip 2")},
        {"labels": {"rack": "3"}},
        {"emulation": Emulation()},
        {"python": "/opt/other/bin/python"},
    ],
)
def test_a_pool_that_is_configured_otherwise_has_no_verdict(changes: dict[str, object]) -> None:
    assert verdict_of(pool("a", **changes), Role.TRAIN, [verdict(pool("a"))], 0.0) is None  # type: ignore[arg-type]


def test_a_new_price_leaves_the_verdict() -> None:
    dearer = pool("a", chip=accelerator(price_per_hour=9.0), price_per_hour=3.0)
    assert verdict_of(dearer, Role.TRAIN, [verdict(pool("a"))], 0.0) is not None


# --- what follows for a plan --------------------------------------------------------------------

MADE = plan(stage("s"), pools=("a", "b", "c"))
FREE, STRICT = Rules(required=False), Rules(required=True)


def pools_of(made: Plan) -> tuple[str, ...]:
    return made["s"].pools


def test_without_verdicts_all_pools_are_used_and_that_is_told() -> None:
    found = vet(MADE, [], FREE, 0.0)
    assert found.plan == MADE
    assert (found.problems, found.dropped) == ((), ())
    [note] = found.notes
    assert note.startswith("Not qualified: a (train), b (train), c (train); `orchestrator")


def test_a_refused_fallback_is_left_out_with_its_reason() -> None:
    found = vet(MADE, [verdict(pool("b"))], FREE, 0.0)
    assert pools_of(found.plan) == ("a", "c")
    assert set(found.plan.pools) == {"a", "c"}
    assert found.problems == ()
    assert found.dropped == (
        "no fallback: pool 'b' was refused for train by run q-1: EI0002 (and 1 more)",
    )


def test_a_refused_pool_that_was_chosen_is_a_problem() -> None:
    found = vet(MADE, [verdict(pool("a"), reasons=("EI0002",))], FREE, 0.0)
    [problem] = found.problems
    assert problem.path == "roles.train"
    assert problem.what == "pool 'a' was refused for train by run q-1: EI0002"
    assert "--unqualified" in problem.hint
    assert pools_of(found.plan) == ("a", "b", "c")


def test_a_refusal_without_a_reason_says_so() -> None:
    [problem] = vet(MADE, [verdict(pool("a"), reasons=())], FREE, 0.0).problems
    assert "no reason is kept" in problem.what


def test_where_verdicts_are_required_pools_without_one_are_kept_out() -> None:
    good = [verdict(pool("a"), Standing.QUALIFIED), verdict(pool("c"), Standing.LIMITED)]
    found = vet(MADE, good, STRICT, 0.0)
    assert pools_of(found.plan) == ("a", "c")
    assert found.dropped == ("no fallback: pool 'b' is not qualified for train",)
    assert found.notes == ("c is qualified for train with limits: EI0002; slow",)
    [problem] = vet(MADE, [], STRICT, 0.0).problems
    assert problem.what == "pool 'a' is not qualified for train"


def test_unless_somebody_says_otherwise_real_chips_need_a_verdict_and_emulated_ones_do_not() -> (
    None
):
    stand_in = pool("b", emulation=Emulation())
    made = plan(stage("s"), pools=("a", "b"), b=stand_in)
    [problem] = vet(made, [], Rules(), 0.0).problems
    assert problem.what == "pool 'a' is not qualified for train"
    other = vet(plan(stage("s"), pools=("b", "a"), b=stand_in), [], Rules(), 0.0)
    assert other.problems == ()
    assert pools_of(other.plan) == ("b",)
    assert other.notes[0].startswith("Not qualified: b (train); `orchestrator")


def test_formats_stay_with_their_pools() -> None:
    chat = Endpoint(name="chat", engine="e", formats=("bf16", "int8"))
    chip = accelerator(formats=("int8",))
    made = plan(
        stage("m"),
        stage("s", job=None, endpoint=chat, inputs={"model": "m"}, role=Role.SERVE),
        pools=("a", "b", "c"),
        c=pool("c", chip=chip),
    )
    refused = verdict(pool("b"), role=Role.SERVE)
    found = vet(made, [refused], FREE, 0.0, (Role.SERVE,)).plan["s"]
    assert (found.pools, found.formats) == (("a", "c"), ("bf16", "int8"))


def test_what_needs_no_chip_or_only_prepares_needs_no_verdict() -> None:
    prepares = stage("p", role=Role.PREPARE)
    on_host = stage("s", needs=Needs(devices=0))
    assert vet(plan(prepares, on_host), [], STRICT, 0.0).problems == ()


def test_roles_in_which_nothing_is_done_are_not_asked() -> None:
    assert vet(MADE, [], STRICT, 0.0, (Role.SERVE,)).problems == ()


def test_the_chosen_pools_without_a_verdict_are_known() -> None:
    assert unknown(MADE, [], 0.0) == (("a", Role.TRAIN),)
    assert unknown(MADE, [verdict(pool("a"))], 0.0) == ()


# --- the nodes that were measured ---------------------------------------------------------------

NODES = {"n1": "chips-1", "n2": "chips-2"}
EXCHANGED = {"n1": "chips-1", "n2": "chips-9"}


def qualified(name: str = "a", **changes: object) -> Verdict:
    return verdict(pool(name), Standing.QUALIFIED, nodes=NODES, **changes)


def test_a_node_that_was_exchanged_behind_its_label_is_not_qualified_and_is_named() -> None:
    found = vet(MADE, [qualified()], STRICT, 0.0, live={"a": EXCHANGED})
    assert found.problems == ()
    [note] = found.notes
    what, _, way = note.partition(": ")
    assert what.startswith("node 'n2' of pool 'a' is not among those that were qualified")
    assert way == "`orchestrator qualify a` measures what is there"
    assert found.plan["s"].trusted == ("a",)


def test_nodes_under_other_names_are_what_they_were() -> None:
    renamed = dict(zip(("x", "y"), NODES.values(), strict=True))
    assert vet(MADE, [qualified()], STRICT, 0.0, live={"a": renamed}).notes == ()


def test_a_pool_of_which_no_live_node_was_measured_is_kept_out() -> None:
    strange = {"n1": "chips-8", "n2": "chips-9"}
    both = [qualified(), qualified("b")]
    [problem] = vet(MADE, both, STRICT, 0.0, live={"a": strange}).problems
    assert problem.what.startswith("nodes 'n1', 'n2' of pool 'a' are not among those that were")
    assert problem.hint.startswith("`orchestrator qualify a` finds out")
    found = vet(MADE, both, STRICT, 0.0, live={"b": strange})
    assert pools_of(found.plan) == ("a",)
    assert found.dropped[0].startswith("no fallback: nodes 'n1', 'n2' of pool 'b' are not among")
    none_live = vet(MADE, [qualified()], STRICT, 0.0, live={"a": {}})
    assert none_live.problems == (), "who is away is not another one"


def test_where_no_verdict_is_required_no_node_is_asked() -> None:
    found = vet(MADE, [qualified()], FREE, 0.0, live={"a": {"n1": "other"}})
    assert (found.problems, found.plan["s"].trusted) == ((), ())
    assert qualification.trusted_pools(MADE, [qualified()], FREE, 0.0) == {}
    assert set(qualification.trusted_pools(MADE, [qualified()], STRICT, 0.0)) == {"a"}


def test_a_verdict_that_tells_no_nodes_is_of_none() -> None:
    [problem] = vet(
        MADE, [verdict(pool("a"), Standing.QUALIFIED)], STRICT, 0.0, live={"a": NODES}
    ).problems
    assert "nodes 'n1', 'n2'" in problem.what


def test_what_was_measured_is_what_the_last_verdict_says_of_the_pool_as_it_is() -> None:
    measured = qualification.measured
    assert measured(pool("a"), Role.TRAIN, [qualified(), qualified("b")]) == ("chips-1", "chips-2")
    assert measured(pool("a", nodes=2), Role.TRAIN, [qualified()]) == ()
    assert measured(pool("a"), Role.SERVE, [qualified()]) == ()


# --- what a run says ----------------------------------------------------------------------------

BEGUN = (RunStarted(1), AttemptStarted("s", 1, "a"))


def after(*events: Event) -> Run:
    return fold(header(plan(stage("s"))), ((0.0, event) for event in (*BEGUN, *events)))


def broke(kind: FailureKind, **changes: object) -> Run:
    why = replace(failure(kind), **changes)  # type: ignore[arg-type]
    ends = (AttemptFailed("s", 1, why), StageFailed("s", "it"), RunFailed("it"))
    return after(*ends)


def test_what_broke_an_attempt_is_told_with_its_place() -> None:
    [told] = failures_of(broke(FailureKind.SOFTWARE)) or ()
    assert told.reason == "s software: EI0002 (rank 0, step 40)"
    lost = broke(FailureKind.HANG, rank=None, step=None, evidence="x" * 1000)
    [told] = failures_of(lost) or ()
    assert told.note == f"{'x' * 240} ..."


def test_a_link_that_broke_refuses_training_alone() -> None:
    found = failures_of(broke(FailureKind.INTERCONNECT)) or ()
    assert judge(Role.TRAIN, found)[0] is Standing.REFUSED
    assert judge(Role.SERVE, found)[0] is Standing.QUALIFIED


def test_what_says_nothing_of_the_pool_gives_no_verdict() -> None:
    assert failures_of(broke(FailureKind.CONTROLLER_LOST)) is None
    assert failures_of(broke(FailureKind.PLACEMENT)) is None, "others were there for too long"
    assert failures_of(after()) is None
    cancelled = after(CancelRequested("by me"), AttemptCancelled("s", 1), RunCancelled())
    assert failures_of(cancelled) is None
