"""What a registry says of a run's models: their lineage, their verdict, and who leads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import (
    EndpointLife,
    RevisionAdded,
    RevisionReady,
    TrafficMoved,
    follow,
)
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    Event,
    RetryScheduled,
    RunStarted,
    StageCancelled,
    StageFailed,
    StageReused,
)
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.core.spec.stages import Endpoint, Stage
from orchestrator.core.trust.model_versions import (
    ModelVersion,
    candidate,
    digest_of,
    entries,
    leader,
)
from tests.build import deployment, failure, header, plan, refusal, stage, success

DATA, MODEL = ArtifactRef("mem://data", "d" * 64, 1), ArtifactRef("mem://model", "e" * 64, 2)
FIGURES = {"parity/kl_mean": 0.001234567, "parity/passed": 1.0, "other": 3.0}


def stages(*, guarded: bool = True) -> list[Stage]:
    endpoint = Endpoint(name="chat", engine="jobs.engines.Mine")
    guard = stage("parity", role=Role.SERVE, inputs={"model": "export"})
    return [
        stage("data", role=Role.PREPARE),
        stage("train", inputs={"data": "data"}),
        stage("export", role=Role.PREPARE, inputs={"model": "train"}),
        *([guard] if guarded else []),
        stage(
            "serve",
            *(["parity"] if guarded else []),
            role=Role.SERVE,
            job=None,
            endpoint=endpoint,
            inputs={"model": "export"},
        ),
    ]


def after(*events: Event, guarded: bool = True) -> Run:
    planned = plan(*stages(guarded=guarded), pools=("a", "b"))
    known = replace(
        header(planned, "r2-1"),
        config={"seed": 0},
        tags={"mlflow.source.git.commit": "abc"},
    )
    run = begin(known)
    first = (
        RunStarted(1),
        *success("data", DATA),
        *success("train", ArtifactRef("mem://t", "f" * 64, 1)),
    )
    for event in (*first, *events):
        run = apply(run, event, 1.0)
    return run


def exported(*events: Event, guarded: bool = True) -> Run:
    return after(*success("export", MODEL), *events, guarded=guarded)


def test_a_model_that_is_not_there_yet_is_no_version() -> None:
    assert list(entries(after())) == []


def test_a_version_tells_where_its_model_comes_from() -> None:
    (entry,) = entries(exported())
    assert (entry.name, entry.key) == ("chat", f"{'e' * 64}@a")
    assert (entry.exporter, entry.guard) == (("export", 1), None)
    expected = {
        "run": "r2-1",
        "stage": "export",
        "attempt": "1",
        "pool": "a",
        "format": "bf16",
        "emulated": "false",
        "git.commit": "abc",
        "config.digest": digest_of({"seed": 0}),
        "data.digest": digest_of(["d" * 64]),
        "input.data": "d" * 64,
        "input.train": "f" * 64,
        "artifact.uri": "mem://model",
        "artifact.digest": "e" * 64,
        "parity": "pending",
    }
    assert expected.items() <= entry.tags.items()


def test_a_model_that_an_earlier_run_made_has_that_ones_name() -> None:
    (entry,) = entries(after(StageReused("export", MODEL, {}, "r2-0")))
    assert (entry.tags["run"], entry.tags["registered_by"]) == ("r2-0", "r2-1")
    assert entry.exporter is None
    assert "attempt" not in entry.tags


def test_a_passed_comparison_stands_with_its_figures() -> None:
    (entry,) = entries(exported(*success("parity", DATA, **FIGURES)))
    assert entry.tags["parity"] == "passed"
    assert entry.tags["parity.kl_mean"] == "0.00123457"
    assert entry.figures == {"parity/kl_mean": 0.001234567, "parity/passed": 1.0}
    assert entry.guard == ("parity", 1)


def test_a_failed_comparison_stands_with_its_reason() -> None:
    (entry,) = entries(exported(*refusal("parity", FailureKind.PARITY)))
    assert entry.tags["parity"] == "failed"
    assert entry.tags["parity.reason"] == "parity: kl_mean is 3"


@pytest.mark.parametrize(
    "events",
    [
        refusal("parity", FailureKind.NODE_LOST),
        (StageFailed("parity", "cost: over budget"),),
        (CancelRequested("Ctrl-C"), StageCancelled("parity")),
    ],
)
def test_a_comparison_without_an_end_says_nothing(events: tuple[Event, ...]) -> None:
    (entry,) = entries(exported(*events))
    assert entry.tags["parity"] == "unknown"


def test_a_comparison_on_another_pool_does_not_count_here() -> None:
    moved = (
        AttemptStarted("parity", 1, "a"),
        AttemptFailed("parity", 1, failure()),
        RetryScheduled("parity", "b", 0.0, "fall back"),
        AttemptStarted("parity", 2, "b"),
        AttemptPlaced("parity", 2, ("n",)),
        AttemptSucceeded("parity", 2, DATA, {}),
    )
    (entry,) = entries(exported(*moved))
    assert entry.tags["parity"] == "elsewhere"


def test_without_a_stage_that_compares_the_version_says_so() -> None:
    (entry,) = entries(exported(guarded=False))
    assert entry.tags["parity"] == "not compared"


def version(number: int, parity: str, key: str = "k") -> ModelVersion:
    tags = {"orchestrator.key": key, "parity": parity} if key else {}
    return ModelVersion(name="chat", number=number, tags=tags)


def test_the_candidate_is_the_newest_that_may_serve() -> None:
    there = [version(1, "passed"), version(2, "not compared"), version(3, "failed")]
    others = [version(4, "pending"), version(5, "elsewhere"), version(6, "", key="")]
    found = candidate([*there, *others])
    assert found is not None
    assert found.number == 2
    assert candidate([]) is None
    assert version(6, "", key="").parity == "not compared"


def test_who_leads_is_the_last_that_got_all_traffic() -> None:
    life = EndpointLife(name="chat")
    assert leader(life) is None
    first, second = deployment("chat"), deployment("chat", pool_name="b", revision=2)
    for at, event in enumerate(
        (
            RevisionAdded(1, first),
            RevisionReady(1),
            TrafficMoved({1: 100}, "the first revision"),
            RevisionAdded(2, second),
            RevisionReady(2),
            TrafficMoved({1: 75, 2: 25}, "a step"),
        )
    ):
        life = follow(life, event, float(at))
    assert leader(life) == (2.0, f"{first.model.digest}@a")
    life = follow(life, TrafficMoved({2: 100}, "the last step"), 9.0)
    assert leader(life) == (9.0, f"{first.model.digest}@b")
    for event in (
        RevisionAdded(3, outside=Outside(address="http://far", model="m")),
        RevisionReady(3),
        TrafficMoved({3: 100}, "by hand"),
    ):
        life = follow(life, event, 10.0)
    assert leader(life) == (10.0, "")
