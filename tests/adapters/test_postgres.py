"""PostgreSQL as it is: it restarts, is full, is of another encoding, and holds locks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import text

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.database import SqlDatabase, connections, transactions
from orchestrator.controller.recording import EventRecorder
from orchestrator.core.errors import StoreError, UnstorableError
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunStarted, RunState
from orchestrator.messages import Points
from orchestrator.service.runs import load
from orchestrator.wiring.adapters import database_refusal
from tests.build import header, plan, stage
from tests.postgres import PostgresServer, server

LIBC = ("--locale-provider=libc",)
NO_HOST = "postgresql://ann:hunter2@127.0.0.1:1/runs?connect_timeout=2"


@pytest.fixture
def store(postgres: PostgresServer) -> Iterator[SqlDatabase]:
    opened = SqlDatabase(postgres.schema())
    opened.create(header(plan(stage("s"))), 0.0)
    yield opened
    opened.close()


def test_a_database_of_another_encoding_is_refused_in_a_line(postgres: PostgresServer) -> None:
    for encoding in ("SQL_ASCII", "LATIN1"):
        url = postgres.database("-E", encoding, "--locale=C", "-T", "template0", *LIBC)
        with pytest.raises(StoreError, match=rf"encoding is '{encoding}', .*createdb") as caught:
            SqlDatabase(url)
        assert not isinstance(caught.value, UnstorableError)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda url: url.replace("/postgres?", "/nosuch?"),
            "not exist; make it by `createdb",
        ),
        (lambda url: url.replace("tests@", "nosuch@"), 'role "nosuch" does not exist'),
        (lambda _: NO_HOST, r"ann:\*\*\*@.*Connection refused.*; start the server"),
        (lambda _: "postgres://nosuch.invalid/runs", "; check the host"),
        (lambda url: url.replace("-csearch_path", "-cnosuch"), "nosuch"),
    ],
)
def test_a_database_that_cannot_be_opened_is_a_line(
    postgres: PostgresServer, change: object, line: str
) -> None:
    with pytest.raises(StoreError, match=line) as caught:
        SqlDatabase(change(postgres.schema()))  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_server_is_asked_whether_it_can_be_used(postgres: PostgresServer) -> None:
    url = postgres.schema()
    assert transactions.refusal(url) == ""
    assert 'role "nosuch" does not exist' in transactions.refusal(url.replace("tests@", "nosuch@"))


def test_a_host_says_why_it_can_not_use_the_database_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", NO_HOST)
    refused, untried = database_refusal()
    assert "Connection refused" in refused
    assert ("hunter2" in refused, untried) == (False, "")
    for elsewhere in ("", "/srv/events.db"):
        monkeypatch.setenv("ORCHESTRATOR_DATABASE", elsewhere)
        assert database_refusal() == ("", "ORCHESTRATOR_DATABASE is not set there")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "install orchestrator[postgres]" in database_refusal()[1]


def test_the_driver_that_an_address_names_is_ours_whatever_it_says(
    postgres: PostgresServer,
) -> None:
    url = postgres.schema()
    for scheme in ("postgres", "postgresql+psycopg2"):
        SqlDatabase(url.replace("postgresql", scheme, 1)).close()


def test_a_lock_that_somebody_holds_is_a_line_and_not_a_wait_for_ever(
    postgres: PostgresServer,
) -> None:
    url = postgres.schema()
    hasty, other = SqlDatabase(url, patience=1.0), SqlDatabase(url)
    with other._writing() as connection:
        connection.execute(text("LOCK TABLE cursors"))
        with pytest.raises(StoreError, match="lock timeout; another process holds it"):
            hasty.set_cursor("c", 1)
    hasty.set_cursor("c", 2)
    assert other.cursor("c") == 2
    hasty.close()
    other.close()


def test_all_waits_have_ends(store: SqlDatabase) -> None:
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "application_name")
    with store._reading() as connection:
        said = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
        driver = connection.connection.driver_connection
    assert said == [f"{connections.BUSY_SECONDS}s", "1min", "orchestrator"]
    assert {"connect_timeout": "10", "tcp_user_timeout": "30000"}.items() <= (
        driver.info.get_parameters().items()  # type: ignore[union-attr]
    )


def test_points_are_stored_in_bulk_and_bad_bytes_are_refused(store: SqlDatabase) -> None:
    store.add_points("run", "s", 1, [Points(n, {"loss": 1.0}, 0.0) for n in range(2000)])
    assert len(store.points("run")) == 2000
    with pytest.raises(UnstorableError, match="NUL"):
        store.drain("a\0b", "why")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_commit_outlives_a_restart_of_the_server(how: signal.Signals) -> None:
    with server() as own:
        store = SqlDatabase(own.schema())
        store.create(header(plan(stage("s"))), 0.0)
        recorder = EventRecorder(store, "run", SystemClock(), patience=60.0)
        recorder.append(1, RunStarted(1), 1.0)
        own.stop(how)
        with pytest.raises(StoreError) as caught:
            store.events("run")
        assert "\n" not in str(caught.value)
        began = Event()

        def commit() -> None:
            began.set()
            recorder.append(2, RunStarted(2), 2.0)

        committing = Thread(target=commit)
        committing.start()
        began.wait(10)
        own.start()
        committing.join(60)
        assert [stored.event for stored in store.events("run")] == [RunStarted(1), RunStarted(2)]
        store.close()


LAUNCH = ("launch", "pipeline=noop", "cluster=local", "tracking.enabled=false", "--no-cache")


def waited(store: SqlDatabase, seconds: float = 60.0) -> Run:
    """Return the newest run once it runs."""
    clock = SystemClock()
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        runs = [load(store, known) for known in store.runs(1)]
        if runs and runs[0].state is RunState.RUNNING:
            return runs[0]
        clock.sleep(0.1)
    raise AssertionError("no run began")


def test_a_run_outlives_a_restart_of_the_server(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with server() as own:
        url, open_gate = own.schema(), tmp_path / "open"
        gate = f"+pipeline.stages.noop.gate={{kind: file, target: {open_gate}}}"
        driven = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *LAUNCH, gate],
            cwd=tmp_path,
            env={**environment, "ORCHESTRATOR_DATABASE": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        store = SqlDatabase(url)
        run = waited(store)
        own.stop()
        SystemClock().sleep(2.0)
        own.start()
        open_gate.touch()
        assert "succeeded" in driven.communicate(timeout=60)[0]
        lease = store.lease(run.header.run)
        assert load(store, run.header).epoch == run.epoch, "the same controller"
        assert lease is None
        store.close()


def test_a_question_has_no_transaction_around_it_and_a_write_has(
    store: SqlDatabase, tmp_path: Path
) -> None:
    with store._reading() as connection:
        link = connection.connection.dbapi_connection.pgconn

    def said(act: Callable[[], object]) -> str:
        with (tmp_path / "trace").open("w", encoding="utf-8") as trace:
            link.trace(trace.fileno())
            act()
            link.untrace()
        return (tmp_path / "trace").read_text("utf-8")

    asked = said(lambda: store.queue(1.0))
    assert "queues" in asked
    assert not any(word in asked for word in ("BEGIN", "COMMIT", "ROLLBACK"))
    written = said(lambda: store.drain("a", "repair"))
    assert written.index("BEGIN") < written.index("drains") < written.rindex("COMMIT")
