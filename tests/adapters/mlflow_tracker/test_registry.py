"""The models of a run on a real MLflow server: versions with their lineage, and aliases."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from orchestrator.adapters.mlflow_tracker import MlflowTracker, Models
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import (
    EndpointLife,
    RevisionAdded,
    RevisionReady,
    TrafficMoved,
    follow,
)
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    AttemptStarted,
    Event,
    RunFailed,
    RunStarted,
    StageSkipped,
)
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.stages import Endpoint, Needs, Stage
from orchestrator.core.trust.model_versions import ModelVersion, key_of
from orchestrator.core.trust.qualification import Standing, Verdict, identity
from orchestrator.messages import Points
from orchestrator.output_reader import OutputReader
from tests.adapters.mlflow_tracker.conftest import POOLS, START, record
from tests.build import deployment, refusal, success
from tests.fakes import FakeArtifacts
from tests.memory import MemoryStore

SECONDS = 60.0
FIGURES = {"parity/kl_mean": 0.0012, "parity/top1": 1.0, "parity/passed": 1.0}


LIMITED = Verdict(
    pool="ascend",
    role=Role.SERVE,
    identity=identity(POOLS["ascend"]),
    standing=Standing.LIMITED,
    reasons=("pace work: rank 1 is the slowest",),
    run="qualify-1",
    at=START - 1,
    until=START + 1,
)


class OneEndpoint:
    """The port `EndpointLog`, as far as a tracker asks."""

    def __init__(self, name: str) -> None:
        self.life = EndpointLife(name=name)

    def endpoint(self, name: str) -> EndpointLife:
        return self.life

    def say(self, *events: object) -> None:
        for event in events:
            self.life = follow(self.life, event, float(self.life.seq))  # type: ignore[arg-type]


class Telling:
    """A run that exports, compares, and serves; `say` tells its events."""

    def __init__(self, name: str, endpoint: str) -> None:
        needs = Needs(devices=0)
        export = Stage(name="export", role=Role.PREPARE, job="jobs.export.export", needs=needs)
        reads = {"model": "export"}
        parity = Stage(name="parity", role=Role.SERVE, job="jobs.parity.check", inputs=reads)
        served = Endpoint(name=endpoint, engine="jobs.engines.Torch")
        serve = Stage(
            name="serve", role=Role.SERVE, endpoint=served, inputs=reads, after=("parity",)
        )
        planned = (
            PlannedStage(stage=export, pools=("nvidia",)),
            PlannedStage(stage=parity, pools=("ascend",)),
            PlannedStage(stage=serve, pools=("ascend",), formats=("bf16",)),
        )
        plan = Plan(pipeline="r2", fleet="local", stages=planned, pools=POOLS)
        self.name, self.at = name, START
        self.store = MemoryStore()
        self.store.create(RunHeader(run=name, plan=plan, created=START), START)
        self.output = OutputReader(self.store, FakeArtifacts, name)
        self.say(RunStarted(1))

    def say(self, *events: Event) -> None:
        for event in events:
            self.at += 1
            record(self.store, self.name, event, self.at)

    def succeed(self, stage: str, pool: str, ref: ArtifactRef | None, **metrics: float) -> None:
        self.say(*success(stage, ref, pool, **metrics))


def model(letter: str) -> ArtifactRef:
    return ArtifactRef(f"file:///artifacts/{letter}", letter * 64, 10)


@pytest.fixture
def registered(
    uri: str, experiment: str, track: Callable[..., MlflowTracker]
) -> Iterator[Registered]:
    """A run that exported, compared and served; then one whose comparison failed."""
    name = f"chat-{experiment}"
    endpoints = OneEndpoint(name)
    first, second = Telling("r2-1", name), Telling("r2-2", name)
    first.store.note_verdict(LIMITED)
    first.succeed("export", "nvidia", model("a"))
    first.succeed("parity", "ascend", None, **FIGURES)
    first.say(AttemptStarted("serve", 1, "ascend"))
    first.store.note_report("r2-1", ("parity", 1), "parity.md", "Passed.")
    deployed = deployment(name, pool_name="ascend", model=model("a"))
    endpoints.say(RevisionAdded(1, deployed), RevisionReady(1), TrafficMoved({1: 100}, "first"))
    second.succeed("export", "nvidia", model("b"))
    second.say(
        *refusal("parity", FailureKind.PARITY, "ascend"),
        StageSkipped("serve", "stage 'parity' failed"),
        RunFailed("stage 'parity' failed"),
    )
    second.store.add_points("r2-2", "parity", 1, (Points(0, {"parity/kl_mean": 3.0}, START),))
    for one in (first, first, second):  # the second time nothing is new
        assert track(one, endpoints=endpoints).close(SECONDS)
    found = Registered(uri, name, Models(uri), MlflowClient(uri), experiment, endpoints)
    yield found
    found.models.close()


def test_a_run_registers_its_model_and_the_traffic_makes_the_champion(
    registered: Registered,
) -> None:
    refused, kept = registered.models.versions(registered.name)
    assert kept.aliases == ("candidate", "champion")
    assert (refused.key, refused.parity) == (key_of(model("b"), "ascend"), "failed")
    assert refused.tags["parity.reason"] == "parity: kl_mean is 3"
    assert refused.tags["parity.kl_mean"] == "3"
    assert refused.tags["qualification"] == "not qualified"
    assert refused.aliases == ()
    _has_its_lineage(registered, kept)

    registered.models.promote(refused, "by ada")
    life = registered.endpoints.life
    assert registered.models.follow(life) is None  # what was moved before counts no more
    assert registered.models.versions(registered.name)[0].aliases == ("champion",)
    registered.endpoints.say(TrafficMoved({1: 100}, "rolled back by ada"))
    champion = registered.models.follow(registered.endpoints.life)
    assert champion is not None
    assert champion.number == kept.number
    assert registered.models.versions(registered.name)[0].aliases == ()


def _has_its_lineage(registered: Registered, version: ModelVersion) -> None:
    client = registered.client
    found = client.get_model_version(version.name, str(version.number))
    exporter, parity = registered.run("export"), registered.run("parity")
    assert found.run_id == exporter.info.run_id
    assert found.source == f"models:/{version.model_id}"
    assert found.description == (
        "Exported in bf16 by stage export of run r2-1 for pool ascend (emulated). "
        "Compared with what was trained: passed."
    )
    expected = {
        "parity": "passed",
        "parity.kl_mean": "0.0012",
        "qualification": "qualified with limits",
        "qualification.run": "qualify-1",
        "qualification.reasons": "pace work: rank 1 is the slowest",
        "artifact.uri": model("a").uri,
    }
    assert expected.items() <= found.tags.items()
    logged = client.get_logged_model(version.model_id)
    assert logged.source_run_id == exporter.info.run_id
    assert {m.key: m.value for m in logged.metrics or []} == FIGURES
    assert {m.run_id for m in logged.metrics or []} == {parity.info.run_id}
    folder = logged.artifact_location.removeprefix("mlflow-artifacts:/")
    pointer = json.loads(registered.file(f"{folder}/artifact.json"))
    assert pointer == {"uri": model("a").uri, "digest": model("a").digest, "size": 10}
    assert registered.file(f"{folder}/parity.md") == b"Passed."
    files = {item.path for item in client.list_artifacts(parity.info.run_id)}
    assert "parity.md" in files


@dataclass(frozen=True)
class Registered:
    """What stands on the server."""

    uri: str
    name: str
    models: Models
    client: MlflowClient
    experiment: str
    endpoints: OneEndpoint

    def run(self, stage: str) -> Run:
        """Return the MLflow run of a stage of the first run."""
        found = self.client.get_experiment_by_name(self.experiment)
        assert found is not None
        where = f"tags.`orchestrator.key` = 'r2-1/{stage}/1'"
        (run,) = self.client.search_runs([found.experiment_id], where)
        return run

    def file(self, path: str) -> bytes:
        """Return an artifact as the server has it."""
        address = f"{self.uri}/api/2.0/mlflow-artifacts/artifacts/{path}"
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - loopback
            found: bytes = answer.read()
            return found
