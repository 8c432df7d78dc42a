"""What a pool is asked for is what holds on that pool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.database import codec
from orchestrator.controller.attempt_requests import (
    AttemptDefaults,
    anew,
    attempt_request,
    deployment,
    lacking_secrets,
)
from orchestrator.controller.reuse import never_reuse
from orchestrator.core.endpoints.life import RevisionUpdated
from orchestrator.core.runs.decide import Start
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.run import Run
from orchestrator.core.settings import AttemptSettings
from orchestrator.core.spec.command_stages import JOB
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.stages import Endpoint, Scale
from orchestrator.messages import TrackedAt
from tests.build import REF, header, plan, pool, stage

BENCH = AttemptDefaults(packages=(), code=(), storage="file:///s", reuse_key=never_reuse)


@pytest.mark.parametrize(("pool", "bounds"), [("a", (1, 4)), ("b", (2, 8))])
def test_a_deployment_has_the_bounds_of_its_pool(pool: str, bounds: tuple[int, int]) -> None:
    scale = {"b": Scale(replicas=2, max_replicas=8)}
    endpoint = Endpoint(name="chat", engine="jobs.engines.Mine", max_replicas=4, scale=scale)
    serve = stage("s", role=Role.SERVE, job=None, endpoint=endpoint, inputs={"model": "t"})
    run = begin(header(plan(stage("t"), serve, pools=("a", "b"))))
    made = deployment(run, BENCH, Start("s", 1, pool), REF).endpoint
    assert (made.replicas, made.max_replicas) == bounds


def test_replicas_ask_a_storage_for_as_long_as_attempts_do() -> None:
    endpoint = Endpoint(name="chat", engine="vllm")
    serve = stage("s", role=Role.SERVE, job=None, endpoint=endpoint, inputs={"model": "t"})
    run = begin(header(plan(stage("t"), serve)))
    waits = AttemptSettings(storage=7.0)
    made = deployment(run, replace(BENCH, waits=waits), Start("s", 1, "a"), REF)
    assert made.patience == 7.0


def test_a_deployment_has_what_the_last_guard_of_its_model_has_made() -> None:
    endpoint = Endpoint(name="chat", engine="vllm")
    reads = {"model": "t"}
    gate = stage("gate", role=Role.SERVE, inputs=reads)
    other = stage("other", role=Role.TRAIN, inputs=reads)
    serve = stage("s", role=Role.SERVE, job=None, endpoint=endpoint, inputs=reads)
    serve = replace(serve, after=("gate", "other"))
    run = begin(header(plan(stage("t"), gate, other, serve)))
    plain = deployment(run, BENCH, Start("s", 1, "a"), REF)
    assert (plain.proof, plain.kl_mean) == (None, None)
    proof, none = replace(REF, digest="proof"), replace(REF, digest="none")
    derived, others = {"parity/limit_kl_mean": 0.001}, {"parity/limit_kl_mean": 0.5}
    made = {
        "gate": replace(run.stages["gate"], artifact=proof, metrics=derived),
        "other": replace(run.stages["other"], artifact=none, metrics=others),
    }
    run = replace(run, stages={**run.stages, **made})
    gated = deployment(run, BENCH, Start("s", 1, "a"), REF)
    assert (gated.proof, gated.kl_mean) == (proof, 0.001)
    updated = gated.updated(RevisionUpdated(1, REF, "chat/7"))
    assert (updated.proof, updated.kl_mean) == (None, None), "they are of the first model"


def test_an_attempt_is_given_the_variables_and_the_secrets_of_its_stage_and_pool() -> None:
    where = pool("a", env={"A": "pool", "B": "pool"}, secrets={"T": "TOKEN", "U": "/absent"})
    run = begin(header(plan(stage("t", env={"A": "stage"}), a=where)))
    bench = replace(BENCH, secret={"TOKEN": "hidden"}.get)
    asked = attempt_request(run, bench, Start("t", 1, "a"), {})
    assert asked.env == {"A": "stage", "B": "pool"}
    assert asked.secrets == {"T": "hidden"}
    assert lacking_secrets(run, bench, Start("t", 1, "a")) == "U by /absent"
    assert "hidden" not in codec.dump(run.header)


@pytest.mark.parametrize("told", [True, False])
def test_only_a_command_that_writes_to_mlflow_is_told_where_its_run_is_shown(
    told: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    at = TrackedAt("http://mlflow:5000", "ours")
    train = stage("t", job=JOB, params={"command": "x", "mlflow": told})
    run = begin(header(plan(train, stage("u"))))
    bench = replace(BENCH, tracked=lambda: at)
    assert attempt_request(run, bench, Start("t", 1, "a"), {}).tracked == (at if told else None)
    assert attempt_request(run, bench, Start("u", 1, "a"), {}).tracked is None


def test_a_deployment_says_where_the_secrets_of_its_stage_and_pool_are_read() -> None:
    where = pool("a", secrets={"T": "TOKEN"})
    endpoint = Endpoint(name="chat", engine="vllm")
    reads = {"model": "t"}
    serve = stage("s", role=Role.SERVE, job=None, endpoint=endpoint, inputs=reads)
    run = begin(header(plan(stage("t"), replace(serve, secrets={"U": "/absent"}), a=where)))
    bench = replace(BENCH, secret={"TOKEN": "hidden"}.get)
    asked = deployment(run, bench, Start("s", 1, "a"), REF)
    assert asked.secrets == {"T": "TOKEN", "U": "/absent"}
    assert "hidden" not in codec.dump(asked)
    assert lacking_secrets(run, bench, Start("s", 1, "a")) == "U by /absent"


def test_on_a_trusted_pool_the_nodes_are_asked_for_that_were_measured_last() -> None:
    planned = plan(stage("t"), pools=("a", "b"))
    trusted = replace(planned, stages=(replace(planned["t"], trusted=("a",)),))
    bench = replace(BENCH, measured=lambda pool, role: (f"{pool.name} {role}",))
    asked = {
        pool: attempt_request(begin(header(trusted)), bench, Start("t", 1, pool), {}).measured
        for pool in ("a", "b")
    }
    assert asked == {"a": ("a train",), "b": None}


def test_an_attempt_is_told_how_long_to_wait() -> None:
    waits = AttemptSettings(meet=7.0, checkpoint=8.0)
    run = begin(header(plan(stage("t"), pools=("a",))))
    assert attempt_request(run, replace(BENCH, waits=waits), Start("t", 1, "a"), {}).waits == waits


def run_of(name: str, **changes: object) -> Run:
    planned = plan(stage("t"), stage("s", inputs={"data": "t"}, **changes))
    return begin(header(planned, name))


def continued(earlier: Run, now: Run, data: str) -> str:
    defaults = replace(BENCH, earlier=earlier)
    inputs = {"data": replace(REF, digest=data)}
    return attempt_request(now, defaults, Start("s", 1, "a"), inputs).continues


def test_a_stage_goes_on_from_an_earlier_run_that_did_the_same_there() -> None:
    earlier = run_of("old", params={"steps": 3})
    made = replace(earlier.stages["t"], artifact=replace(REF, digest="d1"))
    earlier = replace(earlier, stages={**earlier.stages, "t": made})
    same = run_of("new", params={"steps": 3})
    assert continued(earlier, same, "d1") == "checkpoints/old/s"
    assert continued(earlier, same, "d2") == "", "it reads other data"
    assert continued(earlier, run_of("new", params={"steps": 4}), "d1") == ""
    assert continued(earlier, run_of("new", job="jobs.other.job"), "d1") == ""


def test_a_new_run_says_which_of_its_stages_cannot_go_on_from_an_earlier_one() -> None:
    same, serve = stage("same", params={"steps": 4}), Endpoint(name="chat", engine="jobs.Mine")
    served = stage("serve", role=Role.SERVE, job=None, endpoint=serve, inputs={"model": "same"})
    earlier = begin(header(plan(same, stage("job"), stage("both")), "r1"))
    planned = plan(
        *(same, stage("job", job="jobs.mine.train"), stage("new"), served),
        stage("both", job="jobs.mine.train", params={"steps": 5}),
    )
    assert list(anew(planned, earlier)) == [
        "stage 'job' begins anew: its job differs from that in run r1",
        "stage 'new' begins anew: run r1 has no stage of that name",
        "stage 'both' begins anew: its job and params differ from those in run r1",
    ]
    assert list(anew(replace(plan(same), seed=7), earlier)) == [
        "stage 'same' begins anew: its seed differs from that in run r1"
    ]
