"""What every database of runs must do. Runs against SQLite and against PostgreSQL."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from threading import Barrier, Thread

import numpy as np
import pytest
from sqlalchemy import delete, update

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.codec import dump
from orchestrator.adapters.database.schema import runs, shared_parts
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.errors import (
    NotFoundError,
    StaleControllerError,
    StoreError,
    UnstorableError,
)
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import RunFailed, RunStarted, StageFailed, StageSkipped
from orchestrator.core.spec.plan import Plan
from orchestrator.messages import Lease, Points, Succeeded
from orchestrator.ports import Curve
from tests import build

HEADER = RunHeader(run="r2-1", plan=Plan(pipeline="r2", fleet="local", stages=(), pools={}))
STARTED, FAILED = RunStarted(1), StageFailed("train", "it broke")


@pytest.fixture
def store(url: str) -> Iterator[SqlDatabase]:
    made = SqlDatabase(url)
    made.create(HEADER, at=1.0)
    yield made
    made.close()


def test_events_come_back_in_order_with_their_numbers_and_times(store: SqlDatabase) -> None:
    store.append("r2-1", 1, (STARTED,), at=2.5)
    store.append("r2-1", 2, (FAILED, StageSkipped("serve", "train failed")), at=3.5)
    stored = store.events("r2-1")
    assert [(item.seq, item.at) for item in stored] == [(1, 2.5), (2, 3.5), (3, 3.5)]
    assert [item.event for item in stored][:2] == [STARTED, FAILED]
    assert [item.seq for item in store.events("r2-1", after=2)] == [3]


def test_a_second_controller_that_appends_the_same_number_is_stale(store: SqlDatabase) -> None:
    store.append("r2-1", 1, (STARTED,), at=1.0)
    with pytest.raises(StaleControllerError, match="event 1 of run 'r2-1' exists"):
        store.append("r2-1", 1, (FAILED,), at=1.0)
    assert [item.event for item in store.events("r2-1")] == [STARTED]


def test_of_several_controllers_in_one_race_exactly_one_wins(store: SqlDatabase) -> None:
    ready = Barrier(4)
    won: list[int] = []
    stale: list[int] = []

    def race(epoch: int) -> None:
        ready.wait()
        try:
            store.append("r2-1", 1, (RunStarted(epoch),), at=1.0)
        except StaleControllerError:
            stale.append(epoch)
        else:
            won.append(epoch)

    threads = [Thread(target=race, args=(epoch,)) for epoch in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(stale)) == (1, 3)
    assert [item.event for item in store.events("r2-1")] == [RunStarted(won[0])]


def test_events_are_appended_all_or_none(store: SqlDatabase) -> None:
    store.append("r2-1", 1, (STARTED, STARTED), at=1.0)
    with pytest.raises(StaleControllerError):
        store.append("r2-1", 2, (FAILED, FAILED, FAILED), at=1.0)
    assert len(store.events("r2-1")) == 2


def test_appending_nothing_does_nothing(store: SqlDatabase) -> None:
    store.append("r2-1", 1, (), at=1.0)
    assert store.events("r2-1") == []


def test_a_gap_in_the_numbers_is_refused(store: SqlDatabase) -> None:
    with pytest.raises(StoreError, match="event 3 of run 'r2-1' would leave a gap"):
        store.append("r2-1", 3, (STARTED,), at=1.0)


def test_events_of_a_run_that_does_not_exist_are_refused(store: SqlDatabase) -> None:
    with pytest.raises(StoreError, match="run 'r9' does not exist") as caught:
        store.append("r9", 1, (STARTED,), at=1.0)
    assert not isinstance(caught.value, StaleControllerError)


def test_a_run_is_created_once(store: SqlDatabase) -> None:
    with pytest.raises(StoreError, match="run 'r2-1' exists already"):
        store.create(HEADER, at=2.0)


def test_a_header_is_found_by_id_and_by_unique_prefix(store: SqlDatabase) -> None:
    store.create(replace(HEADER, run="r2-10"), at=2.0)
    store.create(replace(HEADER, run="other"), at=3.0)
    assert store.header("r2-1") == HEADER
    assert store.header("r2-10").run == "r2-10"
    assert store.header("o").run == "other"


def test_a_prefix_of_several_runs_names_them(store: SqlDatabase) -> None:
    store.create(replace(HEADER, run="r2-2"), at=2.0)
    with pytest.raises(NotFoundError, match=r"run 'r2' could be any of r2-1, r2-2; type more"):
        store.header("r2")


@pytest.mark.parametrize("name", ["R2-1", "", "r_", "%"])
def test_an_unknown_run_is_answered_with_the_newest(store: SqlDatabase, name: str) -> None:
    store.create(replace(HEADER, run="r2-2"), at=2.0)
    with pytest.raises(NotFoundError, match=r"no run '.*'; the newest are r2-2, r2-1"):
        store.header(name)


def test_an_empty_store_says_so(url: str) -> None:
    empty = SqlDatabase(url)
    with pytest.raises(NotFoundError, match="no run 'r2-1'; there are none yet"):
        empty.header("r2-1")
    assert empty.runs() == []
    empty.close()


def test_the_newest_runs_come_first(store: SqlDatabase) -> None:
    for number in (3, 2):
        store.create(replace(HEADER, run=f"r2-{number}"), at=float(number))
    assert [header.run for header in store.runs(limit=2)] == ["r2-3", "r2-2"]


def test_metric_points_come_back_by_id(store: SqlDatabase) -> None:
    store.add_points("r2-1", "train", 1, [Points(1, {"loss": 2.0, "lr": 0.1}, 5.0)])
    store.add_points("r2-1", "train", 2, [Points(2, {"loss": 1.5}, 6.0)])
    found = store.points("r2-1")
    assert [(p.attempt, p.key, p.value, p.step, p.at) for p in found] == [
        (1, "loss", 2.0, 1, 5.0),
        (1, "lr", 0.1, 1, 5.0),
        (2, "loss", 1.5, 2, 6.0),
    ]
    assert store.points("r2-1", after=found[0].id, limit=1) == [found[1]]
    assert store.points("r9") == []


def test_a_metric_point_that_is_there_is_not_added_again(store: SqlDatabase) -> None:
    points = [Points(step, {"loss": 1.0}, float(step)) for step in range(5)]
    store.add_points("r2-1", "train", 1, points[:3])
    store.add_points("r2-1", "train", 1, points)
    assert [point.step for point in store.points("r2-1")] == [0, 1, 2, 3, 4]


def test_metric_points_that_are_no_finite_number_survive(store: SqlDatabase) -> None:
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 5e-324}
    store.add_points("r2-1", "train", 1, [Points(1, values, 1.0), Points(2, {}, 1.0)])
    found = {point.key: point.value for point in store.points("r2-1")}
    assert repr(found) == repr(values)


def test_the_curves_of_a_run_are_counted_up_to_a_point(store: SqlDatabase) -> None:
    for step in range(3):
        store.add_points("r2-1", "train", 1, [Points(step, {"loss": 1.0, "lr": 0.1}, 1.0)])
    store.add_points("r2-1", "train", 2, [Points(2, {"loss": math.nan}, 2.0)])
    points = store.points("r2-1")
    last = next(point.id for point in points if (point.key, point.step) == ("loss", 2))
    known = {"stage": "train", "attempt": 1}
    assert store.curves("r2-1", last) == [
        Curve(key="loss", points=3, step=2, **known),
        Curve(key="lr", points=2, step=1, **known),
    ]
    assert store.curves("r2-1", points[-1].id)[2] == Curve(
        stage="train", attempt=2, key="loss", points=1, step=2
    )
    assert store.curves("r2-1", 0) == store.curves("r9", last) == []


def test_the_points_of_a_curve_come_back_from_a_step_on(store: SqlDatabase) -> None:
    store.add_points(
        "r2-1", "train", 1, [Points(s, {"loss": 1.0, "lr": 0.1}, 1.0) for s in (0, 1)]
    )
    store.add_points("r2-1", "train", 2, [Points(2, {"loss": 1.0}, 2.0)])
    store.add_points("r2-1", "train", 1, [Points(2, {"loss": 1.0}, 1.0)])
    points = store.points("r2-1")
    curve = Curve(stage="train", attempt=1, key="loss", points=3, step=2)
    mine = [point for point in points if (point.key, point.attempt) == ("loss", 1)]
    last = points[-1].id
    assert store.curve_points("r2-1", curve, -math.inf, last) == mine
    assert store.curve_points("r2-1", curve, 0.0, last) == mine[1:]
    assert store.curve_points("r2-1", curve, 0.0, last - 1) == mine[1:2]
    assert store.curve_points("r2-1", curve, 2.0, last) == []


def test_a_cursor_begins_at_zero_and_keeps_its_latest_value(store: SqlDatabase) -> None:
    assert store.cursor("mlflow/r2-1") == 0
    store.set_cursor("mlflow/r2-1", 7)
    store.set_cursor("mlflow/r2-1", 2**40)
    assert store.cursor("mlflow/r2-1") == 2**40


def test_a_request_to_cancel_is_seen_by_all(store: SqlDatabase, url: str) -> None:
    other = SqlDatabase(url)
    assert not store.cancel_requested("r2-1")
    for _ in range(2):
        other.request_cancel("r2-1")
    assert store.cancel_requested("r2-1")
    assert not store.cancel_requested("r9")
    store.withdraw_cancel("r2-1")
    assert not store.cancel_requested("r2-1")
    with pytest.raises(NotFoundError, match="no run 'r9'"):
        other.request_cancel("r9")
    other.close()


def test_the_latest_result_of_a_key_is_recalled(store: SqlDatabase) -> None:
    result = Succeeded(ArtifactRef("file:///a", "0" * 64, 3), {"loss": math.inf})
    assert store.recall("key") is None
    store.remember("key", Succeeded(None), "r2-1")
    store.remember("key", result, "r2-2")
    assert store.recall("key") == (result, "r2-2")


@pytest.mark.parametrize("step", [2**70, None, "x", 1.5])
def test_what_is_no_point_is_refused_and_the_others_are_kept(
    store: SqlDatabase, step: object
) -> None:
    bad = Points(step, {"loss": 1.0}, 1.0)  # type: ignore[arg-type]
    good = [Points(1, {"loss": 2.0, "a": "x"}, 2.0), Points(2, {"half \ud83d": 3.0}, 2.0)]
    with pytest.raises(UnstorableError, match="2 metric points can't be stored, the first: step"):
        store.add_points("r2-1", "s", 1, [bad, *good])  # type: ignore[list-item]
    assert [(p.key, p.step, p.value) for p in store.points("r2-1")] == [
        ("loss", 1, 2.0),
        ("half \\ud83d", 2, 3.0),
    ]


def test_a_step_of_numpy_is_the_number_that_it_is(store: SqlDatabase) -> None:
    store.add_points("r2-1", "s", 1, [Points(np.int64(3), {"loss": np.float32(0.5)}, 1.0)])  # type: ignore[arg-type, dict-item]
    (point,) = store.points("r2-1")
    assert (type(point.step), point.step, point.value) == (int, 3, 0.5)


def test_rows_that_are_no_points_are_skipped_however_many_they_are(
    store: SqlDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    if store._reader.dialect.name != "sqlite":
        return  # others refuse them
    with store._writing() as connection:
        row = "INSERT INTO points (run, stage, attempt, key, value, step, at) VALUES "
        for number in range(10):
            connection.exec_driver_sql(row + f"('r2-1', 's', 1, 'loss', 1.0, x'0{number}', 1.0)")
    store.add_points("r2-1", "s", 1, [Points(1, {"loss": 2.0}, 2.0)])
    (point,) = store.points("r2-1", limit=3)
    assert point.step == 1
    assert "are no metric points, and are left out" in caplog.text


def test_a_value_that_a_database_refuses_is_told_from_a_database_that_is_away(
    store: SqlDatabase,
) -> None:
    with pytest.raises(UnstorableError):
        store.append("r2-1", 1, (RunFailed(object()),), 1.0)  # type: ignore[arg-type]
    with pytest.raises(UnstorableError):
        store.renew_lease(Lease(run="r2-1", epoch=2**70, at=1.0))


# --- what headers share --------------------------------------------------------------------------

SIGNATURES = {f"s{number}": {"pattern": f"error {number}" * 20} for number in range(100)}


def configured(run: str, signatures: object) -> RunHeader:
    return replace(HEADER, run=run, config={"seed": 1, "signatures": signatures})


def test_what_the_configs_of_runs_share_comes_back_in_each(store: SqlDatabase) -> None:
    headers = [configured(f"run-{n}", SIGNATURES) for n in range(3)]
    other = configured("run-3", {"mine": {"pattern": "x"}})
    for header in (*headers, other, configured("run-4", {})):
        store.create(header, at=2.0)
    assert store.header("run-1") == headers[1]
    assert list(reversed(store.runs()))[1:4] == headers
    assert store.header("run-3") == other
    assert store.header("run-4").config["signatures"] == {}


def test_what_the_configs_of_runs_share_is_stored_once(store: SqlDatabase) -> None:
    for number in range(100):
        store.create(configured(f"run-{number}", SIGNATURES), at=2.0)
    with store._reading() as connection:
        stored = connection.exec_driver_sql("SELECT sum(length(header)) FROM runs").scalar()
    assert stored < len(json.dumps(SIGNATURES)) * 3, "of a hundred runs"


def test_a_header_of_an_earlier_version_has_all_in_itself(store: SqlDatabase) -> None:
    header = configured("old", SIGNATURES)
    store.create(replace(header, config={}), at=2.0)
    text = json.dumps({**json.loads(dump(header)), "flags": []})
    with store._writing() as connection:
        connection.execute(update(runs).where(runs.c.run == "old").values(header=text))
    assert store.header("old") == header


def test_a_header_of_an_earlier_version_names_its_jobs_as_they_are_called_today(
    store: SqlDatabase,
) -> None:
    before = build.stage("evaluate", job="jobs.evaluation.dataset.evaluate")
    store.create(build.header(build.plan(before, build.stage("noop")), "old"), at=2.0)
    stages = store.header("old").plan.stages
    jobs = [planned.stage.job for planned in stages]
    assert jobs == ["jobs.evaluation.held_out.evaluate", "jobs.noop.noop"]


def test_a_header_whose_shared_part_is_lost_is_told(store: SqlDatabase) -> None:
    store.create(configured("torn", SIGNATURES), at=2.0)
    with store._writing() as connection:
        connection.execute(delete(shared_parts))
    with pytest.raises(StoreError, match="header of run 'torn' lacks its part"):
        store.header("torn")
