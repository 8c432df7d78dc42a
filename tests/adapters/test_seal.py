"""Tokens of replicas are in no byte of the database, and come back to who has the secret."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.codec import dump
from orchestrator.core.endpoints.life import RevisionAdded, RevisionRetired
from orchestrator.core.errors import StoreError
from orchestrator.wiring.home_folder import replica_secret
from tests.build import deployment

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of this test
ADDED = RevisionAdded(1, replace(deployment("chat"), token=TOKEN))


def _mine() -> bytes:
    return b"mine, and long enough"


def _other() -> bytes:
    return b"another, of some host"


def _token(store: SqlDatabase) -> str:
    found = store.endpoint("chat").revisions[1].deployment
    assert found is not None
    return found.token


def test_no_byte_of_the_database_tells_a_token(tmp_path: Path) -> None:
    store = SqlDatabase(tmp_path / "events.db", secret=_mine)
    store.follow(store.endpoint("chat"), [ADDED], 1.0)
    files = list(tmp_path.iterdir())
    assert any(b"RevisionAdded" in file.read_bytes() for file in files)
    assert not any(TOKEN.encode() in file.read_bytes() for file in files)
    store.close()
    again = SqlDatabase(tmp_path / "events.db", secret=_mine)
    assert _token(again) == TOKEN
    again.close()


def test_a_token_that_the_earlier_version_stored_is_read(tmp_path: Path) -> None:
    store = SqlDatabase(tmp_path / "events.db", secret=_mine)
    engine = create_engine(f"sqlite:///{tmp_path}/events.db")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO endpoint_events VALUES ('chat', 1, 1.0, 'RevisionAdded', :body)"),
            {"body": dump(ADDED)},
        )
    engine.dispose()
    assert _token(store) == TOKEN
    store.close()


def test_another_secret_opens_to_what_no_replica_knows_and_says_so_while_it_matters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqlDatabase(tmp_path / "events.db", secret=_mine)
    store.follow(store.endpoint("chat"), [ADDED], 1.0)
    far = SqlDatabase(tmp_path / "events.db", secret=_other)
    with caplog.at_level(logging.WARNING):
        assert _token(far) not in {"", TOKEN}
        assert _token(far) == _token(SqlDatabase(tmp_path / "events.db", secret=_other))
    lines = [record.getMessage() for record in caplog.records]
    assert all("chat.r1 was sealed by another secret" in line for line in lines)
    assert all("set ORCHESTRATOR_SECRET" in line for line in lines)
    assert len(lines) == 2, "once for each process"
    store.follow(store.endpoint("chat"), [RevisionRetired(1, "done")], 2.0)
    caplog.clear()
    _token(SqlDatabase(tmp_path / "events.db", secret=_other))
    assert not caplog.records


def test_a_store_without_a_secret_holds_no_token(tmp_path: Path) -> None:
    store = SqlDatabase(tmp_path / "events.db")
    with pytest.raises(StoreError, match="no secret"):
        store.follow(store.endpoint("chat"), [ADDED], 1.0)
    store.close()


def test_a_home_makes_its_secret_once_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_SECRET", raising=False)
    first = replica_secret(tmp_path)
    assert replica_secret(tmp_path) == first
    assert len(first) == 64
    assert [(f.name, f.stat().st_mode & 0o777) for f in tmp_path.iterdir()] == [("secret", 0o600)]


def test_a_secret_of_the_environment_stands_first_and_is_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_SECRET", "of all hosts, 0123456789")
    assert replica_secret(tmp_path) == b"of all hosts, 0123456789"
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("ORCHESTRATOR_SECRET", "hunter2")
    with pytest.raises(StoreError, match=r"has 7 characters.*openssl rand"):
        replica_secret(tmp_path)
