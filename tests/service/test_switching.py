"""What of an earlier run stands when its model moves to another pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator import wiring
from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.controller_ports import ControllerPorts
from orchestrator.controller.loop import Controller
from orchestrator.core.endpoints.life import Deployment, EndpointLife, Revision, RevisionUpdated
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState
from orchestrator.core.spec.engines import EngineSpec, Maker, Nodes, Parallel
from orchestrator.core.spec.hardware import Format, Role
from orchestrator.core.spec.plan import Plan, make_plan
from orchestrator.core.spec.stages import Bindings, Endpoint, Needs, Stage, Weights
from orchestrator.messages import AttemptRequest, Message, Placed, Succeeded
from orchestrator.service.switching import (
    anew,
    crowded,
    indivisible,
    kept_of,
    unserved,
    weights_of,
)
from tests.build import REF, accelerator, fleet, header, pipeline, pool, stage
from tests.fakes import (
    Asked,
    FakeArtifacts,
    FakeClock,
    FakeCluster,
    FakeGates,
    FakeTracker,
    MemoryStore,
)

POOLS: Mapping[str, tuple[Format, ...]] = {
    "nvidia": ("bf16", "fp8"),
    "ascend": ("bf16",),
    "moore": ("fp8",),
}
OFFERED: tuple[Format, ...] = ("bf16", "fp8_ue8m0", "fp8")
CHAT = Endpoint(name="chat", engine="jobs.engines.e", formats=OFFERED)
STAGES = (
    stage("data", role=Role.PREPARE),
    stage("pretrain", inputs={"data": "data"}, params={"steps": 3}),
    stage("evaluate", inputs={"model": "pretrain"}),
    stage("export", role=Role.PREPARE, inputs={"model": "pretrain"}, params={"format": "auto"}),
    stage("check", role=Role.SERVE, inputs={"model": "export"}),
    stage("serve", "check", job=None, role=Role.SERVE, endpoint=CHAT, inputs={"model": "export"}),
)


def planned(serve: str, *stages: Stage) -> Plan:
    known = [pool(name, chip=accelerator(formats=able)) for name, able in POOLS.items()]
    roles = {Role.PREPARE: "nvidia", Role.TRAIN: "nvidia", Role.SERVE: serve}
    return make_plan(pipeline(*(stages or STAGES)), fleet(*known), Bindings(roles=roles))


ARTIFACTS = FakeArtifacts()


def says(asked: Asked) -> list[tuple[float, Message]]:
    """Succeed with an artifact that tells where it came from."""
    return [(0.1, Placed(("n1",))), (0.2, Succeeded(ARTIFACTS.ref(asked.key), {}))]


def driven(name: str, plan: Plan, kept: Mapping[str, tuple[Succeeded, str]]) -> tuple[Run, Asked]:
    """Drive a run to its end; return it, and what it deployed."""
    clock, store = FakeClock(), MemoryStore()
    cluster = FakeCluster(clock, store, says)
    deps = _deps(cluster, store, clock)
    made = header(plan, name)
    store.create(made, 0.0)
    run = Controller(made, deps, replace(BENCH, kept_results=kept)).drive()
    assert run.state is RunState.SUCCEEDED, run.reason
    *_, last = cluster.asked.values()
    return run, last


def ran(run: Run) -> list[str]:
    return [stage.name for stage in run.stages.values() if stage.attempts]


def test_a_pool_that_serves_the_same_format_needs_nothing_anew() -> None:
    first, _ = driven("one", planned("nvidia"), {})
    assert ran(first) == [one.name for one in STAGES]
    plan = planned("ascend")
    kept = kept_of(first, plan)
    assert sorted(kept) == ["data", "evaluate", "export", "pretrain"]
    moved, deployed = driven("two", plan, kept)
    assert ran(moved) == ["check", "serve"]  # what was found on the old pool says nothing of this
    assert isinstance(deployed, Deployment)
    assert (deployed.format, deployed.pool.name) == ("bf16", "ascend")
    assert deployed.model.uri == "mem://one/export/1"


def test_a_pool_that_needs_another_format_gets_the_model_exported_anew() -> None:
    first, _ = driven("one", planned("nvidia"), {})
    plan = planned("moore")
    kept = kept_of(first, plan)
    assert sorted(kept) == ["data", "evaluate", "pretrain"]
    assert anew(plan, kept) == [
        "run export anew on nvidia: an earlier result does not serve here",
        "run check anew on moore: an earlier result does not serve here",
    ]
    moved, deployed = driven("two", plan, kept)
    assert ran(moved) == ["export", "check", "serve"]
    assert isinstance(deployed, Deployment)
    assert (deployed.format, deployed.pool.name) == ("fp8_ue8m0", "moore")
    assert deployed.model.uri == "mem://two/export/1"

    back = planned("nvidia")
    assert sorted(kept_of(moved, back)) == ["data", "evaluate", "pretrain"]
    assert sorted(kept_of(moved, plan)) == ["check", "data", "evaluate", "export", "pretrain"]


def test_the_export_is_asked_for_in_the_format_of_the_pool() -> None:
    plan = planned("moore")
    clock, store = FakeClock(), MemoryStore()
    cluster = FakeCluster(clock, store, says)
    made = header(plan, "one")
    store.create(made, 0.0)
    Controller(made, _deps(cluster, store, clock), BENCH).drive()
    asked = cluster.asked["one/export/1"]
    assert isinstance(asked, AttemptRequest)
    assert asked.params == {"format": "fp8_ue8m0"}


def test_a_changed_parameter_runs_its_stage_anew_and_all_that_read_it() -> None:
    first, _ = driven("one", planned("nvidia"), {})
    changed = [
        replace(one, params={"steps": 4}) if one.name == "pretrain" else one for one in STAGES
    ]
    assert sorted(kept_of(first, planned("nvidia", *changed))) == ["data"]


def test_a_stage_that_was_never_done_is_not_kept() -> None:
    run, _ = driven("one", planned("nvidia", STAGES[0], STAGES[1]), {})
    assert sorted(kept_of(run, planned("nvidia"))) == ["data", "pretrain"]


BENCH = AttemptDefaults(
    packages=("jobs",), code=(), storage="mem://", reuse_key=lambda _run, _one: None
)


def test_a_model_that_can_not_be_spread_over_the_chips_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    store = wiring.artifact_store(str(tmp_path / "store"))
    folder = store.scratch("export")
    (folder / "config.json").write_text('{"num_attention_heads": 3}')
    kept = {"export": (Succeeded(store.commit(folder, "export", {})), "r1")}
    server = EngineSpec(
        name="fast", command=(), parallel=Parallel(tensor="tp"), makers={"cpu": Maker()}
    )
    endpoint = replace(CHAT, engine="fast", server=server)
    serve = replace(STAGES[-1], endpoint=endpoint, needs=Needs(devices=2), after=())
    plan = planned("nvidia", *STAGES[:4], serve)
    (problem,) = indivisible(plan, kept, str(tmp_path / "store"))
    assert "its 3 attention heads can't be spread over 2 chips" in str(problem)
    assert list(indivisible(plan, {}, str(tmp_path / "store"))) == []
    assert list(indivisible(plan, kept, str(tmp_path / "other"))) == [], "it can't be read"


def test_a_revision_that_never_fits_beside_the_one_it_replaces_is_refused() -> None:
    _, made = driven("one", planned("nvidia"), {})
    assert isinstance(made, Deployment)
    lives = {
        "chat": EndpointLife(
            name="chat", revisions={1: Revision(number=1, since=0.0, deployment=made)}
        )
    }
    whole = made.pool.devices

    def asks(pool_name: str, replicas: int) -> Plan:
        serve = replace(STAGES[-1], endpoint=replace(CHAT, replicas=replicas))
        return planned(pool_name, *STAGES[:-1], replace(serve, needs=Needs(devices=1)))

    assert list(crowded(asks("nvidia", whole - made.needs.devices), lives)) == []
    (problem,) = crowded(asks("nvidia", whole), lives)
    assert f"needs {whole} of the {whole} devices of 'nvidia', of which r1 of 'chat'" in str(
        problem
    )
    assert list(crowded(asks("nvidia", whole), {})) == [], "where nothing serves yet it fits"
    assert list(crowded(asks("ascend", whole), lives)) == []


def test_a_revision_that_finds_no_whole_nodes_beside_the_old_one_is_refused() -> None:
    """Three of five chips each fit on three nodes by their number, and never by their places."""
    _, made = driven("one", planned("nvidia"), {})
    assert isinstance(made, Deployment)
    five = replace(made, pool=replace(made.pool, nodes=2), needs=Needs(devices=5))
    both = replace(five, endpoint=replace(five.endpoint, replicas=2))

    def refused(old: Deployment, devices: int) -> list[str]:
        revision = Revision(number=1, since=0.0, deployment=old)
        server = EngineSpec(
            name="fast",
            command=(),
            parallel=Parallel(tensor="tp"),
            nodes=Nodes(options={"at": "{leader}"}),
            makers={"cpu": Maker()},
        )
        endpoint = replace(CHAT, engine="fast", server=server)
        serve = replace(STAGES[-1], endpoint=endpoint, needs=Needs(devices=devices))
        known = (pool(n, chip=accelerator(formats=able), nodes=2) for n, able in POOLS.items())
        roles = {Role.PREPARE: "nvidia", Role.TRAIN: "nvidia", Role.SERVE: "nvidia"}
        stages = pipeline(*STAGES[:-1], serve)
        plan = make_plan(stages, fleet(*known), Bindings(roles=roles))
        life = EndpointLife(name="chat", revisions={1: revision})
        return [problem.what for problem in crowded(plan, {"chat": life})]

    keeps = "of 'nvidia', of which r1 of 'chat' keeps"
    assert refused(five, 5) == []
    assert refused(both, 5) == [
        f"needs 1 of the 2 nodes {keeps} 2 until the traffic has moved",
    ]
    assert refused(five, 16) == [
        f"needs 16 of the 16 devices {keeps} 5 until the traffic has moved",
    ]
    assert refused(replace(five, needs=Needs(devices=16)), 1) == [
        f"needs 1 of the 16 devices {keeps} 16 until the traffic has moved",
    ]


def updated(form: Format) -> Revision:
    """A revision in whose place other weights were put."""
    _, made = driven("one", planned("nvidia"), {})
    assert isinstance(made, Deployment)
    event = RevisionUpdated(1, replace(REF, uri="mem://other/export/1"), "chat/2")
    return Revision(number=1, since=0.0, deployment=replace(made.updated(event), format=form))


def served(pool_name: str, weights: Weights | None) -> Plan:
    serve = replace(STAGES[-1], endpoint=replace(CHAT, weights=weights))
    return planned(pool_name, *STAGES[:-1], serve)


def test_what_an_update_has_put_there_is_served_on_the_next_pool() -> None:
    plan = served("ascend", weights_of(updated("bf16")))
    assert list(unserved(plan, "one")) == []
    _, deployed = driven("two", plan, {})
    assert isinstance(deployed, Deployment)
    assert (deployed.model.uri, deployed.weights) == ("mem://other/export/1", "chat/2")
    assert deployed.proof is None
    assert weights_of(updated("bf16")) == weights_of(
        Revision(number=2, since=0.0, deployment=deployed)
    ), "and on the one after it"


def test_a_pool_that_can_not_serve_what_an_update_has_put_there_is_refused() -> None:
    (problem,) = unserved(served("moore", weights_of(updated("bf16"))), "one")
    assert "chat/2 is bf16, and pool 'moore' serves fp8_ue8m0" in str(problem)
    assert "`switch one pool=moore` serves what that run has made" in str(problem)


def test_where_nothing_was_updated_the_run_tells_what_is_served() -> None:
    _, made = driven("one", planned("nvidia"), {})
    assert isinstance(made, Deployment)
    assert weights_of(Revision(number=1, since=0.0, deployment=made)) is None
    assert weights_of(None) is None


def _deps(cluster: FakeCluster, store: MemoryStore, clock: FakeClock) -> ControllerPorts:
    return ControllerPorts(
        cluster=cluster,
        serving=cluster,
        store=store,
        artifacts=ARTIFACTS,
        tracker=FakeTracker(),
        clock=clock,
        gates=FakeGates(),
    )
