"""How fast metric points reach MLflow, and what telling them costs the job."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from orchestrator import wiring
from orchestrator.core.runs.states import (
    AttemptPlaced,
    AttemptSaved,
    AttemptStarted,
    Event,
    RunStarted,
)
from orchestrator.core.settings import TrackingSettings
from orchestrator.messages import Points, Succeeded
from orchestrator.supervisor.record import wait
from orchestrator.worker.attempt import stream
from tests.benchmarks.services import Bench, bench
from tests.benchmarks.table import Row, compare
from tests.build import attempt_request, header, plan, stage

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STEPS, KEYS = 2_500, ("loss", "lr", "grad_norm", "tokens_per_second")
ROUNDS = 3
BATCH = 1_000
TOLD_STEPS = 300


def rows() -> list[Row]:
    """Write points by the tracker and by hand, in turns; then tell steps from inside a job."""
    with bench(["pipeline=noop", "cluster=local"]) as ready:
        rounds = [(_tracked(ready, n), _by_hand(ready, n)) for n in range(ROUNDS)]
        told = _told(ready.folder)
    ours = median(written for (written, _), _ in rounds)
    told_ones = median(once for (_, once), _ in rounds)
    theirs = median(by_hand for _, by_hand in rounds)
    step, telling = told["computing"] * 1e3, told["telling"] * 1e3
    name = "metric points into MLflow, against log_batch of 1,000"
    once = "of them, what the job told (the run shows its curves too, thinned)"
    cost = "CPU time of telling metrics and progress, against a step of 10 ms"
    return [
        compare(name, ours, theirs, unit="points/s", goal="ours >= 3000"),
        compare(once, told_ones, theirs, unit="points/s"),
        compare(cost, telling, step, unit="ms", goal="ratio <= 0.01"),
    ]


def _tracked(ready: Bench, number: int) -> tuple[float, float]:
    """Return the points per second of our tracker, all that MLflow got and those that were told.

    The run is shown already when the clock starts.
    """
    from mlflow.tracking import MlflowClient

    from orchestrator.adapters.mlflow_tracker import MlflowTracker

    run = f"tracked-{number}"
    store = wiring.database(ready.folder)
    clock = wiring.clock()
    store.create(header(plan(stage("train")), run), clock.now())
    events: list[Event] = [
        RunStarted(1),
        AttemptStarted("train", 1, "a"),
        AttemptPlaced("train", 1, ("node",)),
    ]
    store.append(run, 1, events, clock.now())
    settings = TrackingSettings(experiment="points", system_seconds=0.0)
    output = wiring.output(store, store.header(run), ready.folder)
    tracker = MlflowTracker(
        store, run, uri=ready.tracking, settings=settings, clock=clock, output=output
    )
    client = MlflowClient(ready.tracking)

    def shown() -> bool:
        found = client.get_experiment_by_name("points")
        where = f"tags.`run.id` = '{run}'"
        return bool(found) and len(client.search_runs([found.experiment_id], where)) > 1

    if not wait(shown, 60.0):
        raise RuntimeError("the tracker doesn't show the run")
    told = [Points(step, dict.fromkeys(KEYS, 1.0), clock.now()) for step in range(STEPS)]
    store.add_points(run, "train", 1, told)
    saved = AttemptSaved("train", 1, STEPS)  # now the run shows the curves too
    store.append(run, len(events) + 1, [saved], clock.now())
    began = perf_counter()
    tracker.notify()
    if not tracker.close(120.0):
        raise RuntimeError("the tracker doesn't write all points")
    seconds = perf_counter() - began
    return _points_of(client, run) / seconds, STEPS * len(KEYS) / seconds


def _points_of(client: MlflowClient, run: str) -> int:
    """Return how many points of our keys MLflow has, of the run and its attempts."""
    experiment = client.get_experiment_by_name("points")
    assert experiment is not None, "the tracker made it"
    shown = client.search_runs([experiment.experiment_id], f"tags.`run.id` = '{run}'")
    names = [(one.info.run_id, key) for one in shown for key in one.data.metrics]
    ours = [(id_, key) for id_, key in names if key.rpartition("/")[2] in KEYS]
    return sum(len(client.get_metric_history(id_, key)) for id_, key in ours)


def _by_hand(ready: Bench, number: int) -> float:
    """Return the points per second of MLflow's own client, in batches as large as it takes."""
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    client = MlflowClient(ready.tracking)
    run = client.create_run("0", run_name=f"by-hand-{number}").info.run_id
    at = round(wiring.clock().now() * 1000)
    began = perf_counter()
    points = [Metric(key, 1.0, at, step) for step in range(STEPS) for key in KEYS]
    for start in range(0, len(points), BATCH):
        client.log_batch(run, metrics=points[start : start + BATCH])
    return len(points) / (perf_counter() - began)


def _told(folder: Path) -> dict[str, float]:
    """Return what a job measured of itself, its messages being packed as a cluster packs them."""
    request = attempt_request(
        "steps",
        run="told",
        job="tests.benchmarks.steps.tell",
        params={"steps": TOLD_STEPS},
        packages=("tests",),
        storage=(folder / "artifacts").as_uri(),
    )
    store = wiring.artifact_store(request.storage)
    outcome = None
    for batch in stream(
        request,
        rank=0,
        rendezvous=None,
        store=store,
        clock=wiring.clock(),
        process_group=lambda *_args, **_kinds: nullcontext(),
    ):
        pickle.dumps(batch)
        outcome = batch[-1]
    if not isinstance(outcome, Succeeded):
        raise TypeError(f"the job did not succeed: {outcome!r}")
    return dict(outcome.metrics)
