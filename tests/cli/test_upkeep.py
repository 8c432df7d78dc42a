"""`orchestrator gc` and `orchestrator db copy`, as they are typed."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.database import SqlDatabase
from orchestrator.cli import upkeep
from orchestrator.core.runs.states import RunFailed, RunStarted
from orchestrator.service.collecting import Kind
from tests.build import header, plan, stage
from tests.conftest import Command
from tests.postgres import PostgresServer


def test_what_may_be_named_is_what_can_be_removed() -> None:
    assert list(upkeep.KINDS) == list(Kind)


def recorded(home: Path) -> SqlDatabase:
    store = SqlDatabase(home / "events.db")
    known = header(plan(stage("s")))
    known.config.update(tracking={"enabled": False})  # type: ignore[attr-defined]
    store.create(known, 0.0)
    store.append("run", 1, (RunStarted(1), RunFailed("broke")), 0.0)
    return store


def test_gc_says_first_and_removes_then(within: Command, tmp_path: Path) -> None:
    store = recorded(tmp_path / ".orchestrator")
    assert within("gc", "--dry-run").stdout.strip() == "nothing is to be removed"
    words = ("gc", "--keep-runs", "0", "--resumable", "--only", "runs")
    said = within(*words, "--dry-run")
    assert "of run run (failed, " in said.stdout
    assert len(store.runs()) == 1
    done = within(*words)
    assert done.stdout.endswith("are removed, of 1 runs.\n"), done
    assert store.runs() == []
    store.close()


def test_gc_refuses_what_is_no_kind(within: Command) -> None:
    assert within("gc", "--only", "everything").returncode == 2
    assert within("gc", "--older", "-1").returncode == 2
    refused = within("gc", "--only", "code", "--mlflow")
    assert refused.returncode == 2
    assert "--mlflow" in refused.stderr
    assert "add --only runs" in refused.stderr


def test_a_database_is_copied_once(
    within: Command, tmp_path: Path, postgres: PostgresServer
) -> None:
    recorded(tmp_path / ".orchestrator").close()
    words = ("db", "copy", ".orchestrator/events.db", postgres.schema())
    assert (
        "copy all of .orchestrator/events.db to postgresql" in within(*words, "--dry-run").stdout
    )
    done = within(*words)
    assert done.returncode == 0
    assert "tables are copied." in done.stdout
    again = within(*words)
    assert again.returncode == 1
    assert "the target is not empty: its table 'runs' has 1 rows" in again.stderr
    assert "there is no database 'nowhere.db'" in within("db", "copy", "nowhere.db", "x.db").stderr
