"""A run in memory to be shown, and a real MLflow server to show it on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.adapters import mlflow_server
from orchestrator.adapters.mlflow_tracker import MlflowTracker, Pace
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptSaved,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    RetryScheduled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    StageFailed,
    StageSkipped,
)
from orchestrator.core.settings import TrackingSettings
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Accelerator, Pool, Role
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.stages import Endpoint, Needs, Stage
from orchestrator.messages import Points
from orchestrator.output_reader import OutputReader
from orchestrator.ports import LogChunk
from tests.fakes import FakeArtifacts
from tests.memory import MemoryStore

START = 1_795_430_000.0
FAST = Pace(between=0.02, heartbeat=0.1, retry=0.05, longest_retry=0.2)


def record(store: MemoryStore, run: str, event: Event, at: float) -> None:
    """Commit the next event of `run`."""
    store.append(run, len(store.log[run]) + 1, (event,), at)


@dataclass
class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False
    time: float = START

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


H100 = Accelerator(
    name="H100", vendor="Nvidia", device="cuda", backend="nccl", resource="GPU", price_per_hour=2.0
)
ASCEND = Accelerator(
    name="Ascend 910C", vendor="Huawei", device="npu", backend="hccl", resource="NPU"
)
POOLS = {
    "nvidia": Pool(name="nvidia", accelerator=H100, emulation=Emulation()),
    "ascend": Pool(name="ascend", accelerator=ASCEND, emulation=Emulation()),
}


def _plan(pipeline: str, train: tuple[str, ...]) -> Plan:
    stages = (
        Stage(name="data", role=Role.PREPARE, job="jobs.data.build", needs=Needs(devices=0)),
        Stage(
            name="pretrain",
            role=Role.TRAIN,
            job="jobs.pretrain.pretrain",
            params={"lr": 0.001, "model": {"layers": 2, "sizes": [1, 2]}},
            inputs={"data": "data"},
            needs=Needs(workers=2),
        ),
        Stage(name="evaluate", role=Role.TRAIN, job="jobs.evaluate", inputs={"m": "pretrain"}),
        Stage(
            name="serve",
            role=Role.SERVE,
            endpoint=Endpoint(name="chat", engine="jobs.engines.Torch"),
            inputs={"model": "pretrain"},
        ),
    )
    pools = {Role.PREPARE: ("nvidia",), Role.TRAIN: train, Role.SERVE: ("ascend",)}
    planned = tuple(PlannedStage(stage=stage, pools=pools[stage.role]) for stage in stages)
    return Plan(pipeline=pipeline, fleet="local", stages=planned, pools=POOLS)


@dataclass
class Tale:
    """A run being told to a store, event by event, a second apart."""

    name: str = "r2-1"
    train: tuple[str, ...] = ("nvidia",)
    config: Mapping[str, object] = field(default_factory=dict)
    at: float = START

    def __post_init__(self) -> None:
        self.header = RunHeader(
            run=self.name,
            plan=_plan("r2", self.train),
            config=self.config or {"pipeline": {"name": "r2"}, "seed": 0},
            overrides=(f"roles.train={self.train[0]}",),
            tags={"mlflow.user": "ada", "mlflow.source.name": "orchestrator"},
            created=self.at,
        )
        self.store = MemoryStore()
        self.store.create(self.header, self.at)
        self.say(RunStarted(1), took=0)

    def say(self, *events: Event, took: float = 1.0) -> None:
        for event in events:
            self.at += took
            record(self.store, self.name, event, self.at)

    @property
    def output(self) -> OutputReader:
        """What its attempts have printed."""
        return OutputReader(self.store, FakeArtifacts, self.name)

    def prints(self, stage: str, number: int, text: str) -> None:
        chunk = LogChunk(stage=stage, attempt=number, at=self.at, text=text)
        self.store.add_log(self.name, [chunk])

    def begin(self, stage: str, number: int = 1, pool: str = "nvidia") -> None:
        self.say(AttemptStarted(stage, number, pool), AttemptPlaced(stage, number, (f"{pool}-0",)))

    def succeed(self, stage: str, number: int = 1, pool: str = "nvidia", **metrics: float) -> None:
        self.begin(stage, number, pool)
        self.say(AttemptSucceeded(stage, number, None, metrics))

    def save(self, stage: str, number: int, *steps: int) -> None:
        self.say(*(AttemptSaved(stage, number, step) for step in steps), took=0)

    def fail(
        self, stage: str, number: int, pool: str, *, following: str, begin: bool = True
    ) -> None:
        if begin:
            self.begin(stage, number, pool)
        failure = Failure(
            kind=FailureKind.INTERCONNECT,
            evidence="EI0002: Notify register times out",
            detail="rank 1 saw it first",
            pool=pool,
            node=f"{pool}-0",
            rank=1,
            step=40,
        )
        self.say(AttemptFailed(stage, number, failure))
        self.retry(stage, following, f"interconnect: fall back to {following}")

    def retry(self, stage: str, pool: str, reason: str = "try again") -> None:
        self.say(RetryScheduled(stage, pool, self.at, reason))

    def give_up(self, stage: str, number: int) -> None:
        failure = Failure(kind=FailureKind.USER_CODE, evidence="ValueError: no", rank=0)
        self.say(AttemptFailed(stage, number, failure), StageFailed(stage, "user_code"))
        self.say(StageSkipped("evaluate", "x"), StageSkipped("serve", "x"), RunFailed("no"))

    def train_points(self, number: int, steps: int, first: int = 1) -> None:
        for step in range(first, steps + 1):
            values = {
                "loss": 4.0 / step + number / 1000,
                "lr": 0.001,
                "tokens_per_second": 900.0 + step,
            }
            points = Points(step, values, self.at + step / 1000)
            self.store.add_points(self.name, "pretrain", number, (points,))

    def to_the_end(self, *, steps: int = 30) -> None:
        """Succeed; on a fleet with a fallback, fail on the first pool before that."""
        self.succeed("data", examples=2000.0)
        self.finish_from_training(steps)

    def finish_from_training(self, steps: int) -> None:
        """Go on from the training stage to the end."""
        for number, pool in enumerate(self.train, start=1):
            if number < len(self.train):
                self.train_points(number, steps // 2)
                self.fail("pretrain", number, pool, following=self.train[number])
            else:
                self.train_points(number, steps)
                self.succeed("pretrain", number, pool, loss=0.123, tokens=5000.0)
        self.succeed("evaluate", 1, self.train[-1], accuracy=0.75, perplexity=1.5)
        self.succeed("serve", 1, "ascend")
        self.say(RunSucceeded())


@pytest.fixture
def home(mlflow_home: Path) -> Path:
    return mlflow_home


@pytest.fixture
def uri(home: Path) -> str:
    return mlflow_server.up(home)


@pytest.fixture
def tale() -> Callable[..., Tale]:
    """Return how to make a run; each has a name of its own."""
    return Tale


_numbers = itertools.count(1)


@pytest.fixture
def experiment() -> str:
    return f"experiment-{next(_numbers)}"


@pytest.fixture
def track(uri: str, experiment: str) -> Iterator[Callable[..., MlflowTracker]]:
    """Return how to start a tracker; those that are still there are closed at the end."""
    started: list[MlflowTracker] = []

    def start(story: Tale, **changes: object) -> MlflowTracker:
        options = {
            "uri": uri,
            "settings": TrackingSettings(experiment=experiment, system_seconds=0),
            "clock": TestClock(story.at),
            "output": story.output,
            "pace": FAST,
            **changes,
        }
        tracker = MlflowTracker(story.store, story.name, **options)  # type: ignore[arg-type]
        started.append(tracker)
        return tracker

    yield start
    for tracker in started:
        tracker.close(0)
