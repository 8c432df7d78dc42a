"""The database on SQLite: exact text, clear lines for what it refuses."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import exc

from orchestrator.adapters.database import SqlDatabase, codec
from orchestrator.core.errors import StoreError
from orchestrator.core.failures.kinds import Action, Failure, FailureKind
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import EVENTS, AttemptFailed, Event, RunStarted, StageReused
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Accelerator, Pool, Role
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.stages import Endpoint, Stage

SECRET = "hunter2"  # noqa: S105 - it must not be shown
STAGE = Stage(
    name="train",
    role=Role.TRAIN,
    job="jobs.pretrain.pretrain",
    params={"lr": 1e-3, "layers": [1, {"deep": None}], "name": "\ud800é", "bad": float("inf")},
    on_failure={FailureKind.HANG: Action.STOP},
)
SERVE = Stage(name="serve", role=Role.SERVE, endpoint=Endpoint(name="m", engine="jobs.e.E"))
CHIP = Accelerator(name="910C", vendor="Huawei", device="npu", backend="hccl", formats=("int8",))
HEADER = RunHeader(
    run="r2-1",
    plan=Plan(
        pipeline="r2",
        fleet="local",
        stages=(
            PlannedStage(stage=STAGE, pools=("a", "b"), cost=1.5),
            PlannedStage(stage=SERVE, pools=("a",), formats=("int8",)),
        ),
        pools={"a": Pool(name="a", accelerator=CHIP, emulation=Emulation())},
    ),
    config=MappingProxyType({"pipeline": {"stages": ["train"]}}),
    overrides=("roles.train=a",),
    tags={"team": "x"},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "events.db"


@pytest.fixture
def store(file: Path) -> Iterator[SqlDatabase]:
    made = SqlDatabase(f"sqlite:///{file}")
    made.create(HEADER, at=1.0)
    yield made
    made.close()


# --- text ---------------------------------------------------------------------------------------


def _any_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    metrics = st.dictionaries(st.text(), st.floats())
    known = {"metrics": metrics} if hasattr(kind, "metrics") else {}
    return st.builds(kind, **known)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first of each kind is costly to draw
@given(st.sampled_from(list(EVENTS.values())).flatmap(_any_of))
def test_every_event_survives_the_round_trip_exactly(event: Event) -> None:
    again = codec.load(type(event), codec.dump(event), "here")
    assert repr(again) == repr(event)  # by text: NaN is not equal to itself


def test_a_header_survives_the_round_trip_exactly(store: SqlDatabase) -> None:
    assert store.header("r2-1") == HEADER


def test_what_a_log_could_not_decode_survives_the_round_trip(store: SqlDatabase) -> None:
    failure = Failure(kind=FailureKind.HANG, evidence="\udcff \0 \u2028", detail="\n")
    store.append("r2-1", 1, (AttemptFailed("train", 1, failure),), at=1.0)
    assert store.events("r2-1")[0].event == AttemptFailed("train", 1, failure)


def test_a_value_that_json_does_not_know_is_refused(store: SqlDatabase) -> None:
    reused = StageReused("train", None, {"loss": object()}, "r1")  # type: ignore[dict-item]
    with pytest.raises(StoreError, match=r"StageReused can't be stored: <object .* is a object"):
        store.append("r2-1", 1, (reused,), at=1.0)
    assert store.events("r2-1") == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("kind = 'Exploded'", "event 1 of run 'r2-1' is of unknown kind 'Exploded'"),
        ('body = \'{"epoch": "no"}\'', "event 1 of run 'r2-1' is no RunStarted"),
        ("body = '{'", "event 1 of run 'r2-1' is no RunStarted: '{'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    store: SqlDatabase, file: Path, change: str, line: str
) -> None:
    store.append("r2-1", 1, (RunStarted(1),), at=1.0)
    connection = sqlite3.connect(file)
    connection.execute(f"UPDATE events SET {change}")  # noqa: S608 - our own text
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=line):
        store.events("r2-1")


# --- the database -------------------------------------------------------------------------------


def test_the_database_survives_a_power_cut_and_lets_readers_read(store: SqlDatabase) -> None:
    with store._reader.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }


def test_a_full_disk_is_one_clear_line_and_nothing_is_added(store: SqlDatabase) -> None:
    with store._writer.begin() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    big = replace(HEADER, run="r2-2", tags={"big": "x" * 1_000_000})
    with pytest.raises(StoreError, match=r"disk is full; free some space and resume the run$"):
        store.create(big, at=2.0)
    assert [header.run for header in store.runs()] == ["r2-1"]


def test_a_locked_database_is_one_clear_line(file: Path, store: SqlDatabase) -> None:
    hasty = SqlDatabase(f"sqlite:///{file}", 0.0)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked; another process holds it"):
        hasty.set_cursor("c", 1)
    assert hasty.header("r2-1") == HEADER
    other.close()
    hasty.close()


@pytest.mark.parametrize(("patience", "waits"), [(2.0, 500), (0.0, 0), (86_400.0, 30_000)])
def test_a_try_waits_for_other_writers_for_a_part_of_the_callers_patience(
    file: Path, patience: float, waits: int
) -> None:
    patient = SqlDatabase(file, patience)
    with patient._reader.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == waits
    patient.close()


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_text("this is no database, and it is long enough to tell\n" * 9)
    with pytest.raises(StoreError, match="not a database; move the file away to begin a new one"):
        SqlDatabase(f"sqlite:///{tmp_path}/events.db")


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"File exists|Not a directory"):
        SqlDatabase(f"sqlite:///{tmp_path}/file/events.db")


def test_a_folder_in_place_of_the_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open database file; check that the folder"):
        SqlDatabase(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("postgresql://ann:secret@[::1", r"'postgresql://\*\*\*': .*; check the host and"),
        ("ann://ann:secret@ /\n", r"'ann://ann:\*\*\*@"),
        ("no url", r"'no url': Could not parse .*; write it as sqlite:////path/to.db or"),
        ("sqlite://", "it has no file"),
        ("nosuch://host/db", "'nosuch' is neither SQLite nor PostgreSQL"),
    ],
)
def test_a_wrong_url_is_one_clear_line(url: str, line: str) -> None:
    with pytest.raises(StoreError, match=line):
        SqlDatabase(url)


def test_a_missing_driver_is_named_and_a_password_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"psycopg.*; pip install 'orchestrator") as caught:
        SqlDatabase(f"postgresql://me:{SECRET}@host/db")
    assert SECRET not in str(caught.value)


def test_values_that_the_driver_cannot_bind_are_refused(store: SqlDatabase) -> None:
    with pytest.raises(StoreError, match="surrogates"):
        store.set_cursor("\ud800", 1)
    with pytest.raises(StoreError, match="too large"):
        store.set_cursor("c", 2**70)


def _all_subclasses(kind: type[Exception]) -> set[type[Exception]]:
    direct = set(kind.__subclasses__())
    return direct.union(*(_all_subclasses(one) for one in direct))


def test_every_error_of_sqlalchemy_is_translated(store: SqlDatabase) -> None:
    kinds = _all_subclasses(exc.SQLAlchemyError)
    assert {exc.OperationalError, exc.TimeoutError, exc.ArgumentError} <= kinds
    for kind in kinds:
        error = kind.__new__(kind)
        error.__dict__.update(orig=None, code=None, statement=None, params=None, detail=[])
        with pytest.raises(StoreError), store._translated():
            raise error


def test_a_closed_store_may_be_closed_again(file: Path, store: SqlDatabase) -> None:
    store.set_cursor("c", 7)
    store.close()
    store.close()
    again = SqlDatabase(file)
    assert again.cursor("c") == 7, "its file is whole"
    again.close()


WRITER = """
import sys
from orchestrator.adapters.database import SqlDatabase
from orchestrator.messages import Points
store = SqlDatabase(sys.argv[1])
for step in range(20):
    store.set_cursor(f"c{step}", step)
store.close()
"""


def test_processes_that_open_a_new_database_together_take_turns(file: Path) -> None:
    words = [sys.executable, "-c", WRITER, f"sqlite:///{file}"]
    processes = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, told
    store = SqlDatabase(f"sqlite:///{file}")
    assert store.cursor("c19") == 19
    store.close()


def test_the_database_is_its_owners_alone_and_an_older_one_becomes_so(tmp_path: Path) -> None:
    at = tmp_path / "home" / "events.db"
    at.parent.mkdir(mode=0o755)
    at.touch(mode=0o644)
    SqlDatabase(at).close()
    new = SqlDatabase(tmp_path / "new" / "events.db")
    assert at.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    new.endpoints()
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()} == {0o600}
    new.close()
