"""A database of each kind that keeps what there is to keep, new for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase
from tests.memory import MemoryStore

SQL = ("sqlite", "postgresql")


@pytest.fixture(params=SQL)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    return _url(request, tmp_path)


@pytest.fixture(params=[*SQL, "memory"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlDatabase | MemoryStore]:
    """Return an empty database, or the fake."""
    if request.param == "memory":
        yield MemoryStore()
        return
    database = SqlDatabase(_url(request, tmp_path))
    yield database
    database.close()


def _url(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{folder}/events.db"
    database: str = request.getfixturevalue("postgres").schema()
    return database
