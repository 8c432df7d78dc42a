"""A run that nobody has begun for a minute is lost: it is shown so, and has a way back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.service import driving

HERE = ["cluster=local", "tracking=none", "pipeline=noop"]


@pytest.fixture
def store(tmp_path: Path, within) -> SqlDatabase:
    return wiring.database(tmp_path / ".orchestrator")


def aged(store: SqlDatabase, seconds_ago: float, name: str = "") -> str:
    """Record a run that long ago, which nobody begins; return its id."""
    found, planned = wiring.planned(HERE)
    now = wiring.clock().now() - seconds_ago
    header = replace(driving.new_header(found, planned, name, home=wiring.home()), created=now)
    store.create(header, header.created)
    return header.run


def state(within, run: str) -> tuple[str, str | None]:
    found = json.loads(within("status", run, "--json").stdout)
    return found["state"], found["controller"]


def test_one_that_was_just_recorded_is_pending(store, within):
    run = aged(store, 5.0)
    assert state(within, run) == ("pending", None)


def test_one_that_nobody_begins_for_a_minute_is_lost(store, within):
    run = aged(store, 90.0)
    assert state(within, run) == ("pending", "gone")
    assert "nobody has begun it since" in within("status", run).stdout


def test_it_can_be_resumed(store, within):
    run = aged(store, 90.0)
    done = within("resume", run)
    assert done.returncode == 0, done.stderr
    assert state(within, run) == ("succeeded", None)


@pytest.mark.parametrize("name", ["", "n" * 300])
def test_it_can_be_cancelled_whatever_its_name(store, within, name):
    run = aged(store, 90.0, name)
    done = within("cancel", run)
    assert done.returncode == 0, done.stderr
    assert state(within, run) == ("cancelled", None)


def test_a_storage_that_nobody_knows_is_refused_before_a_run_is_recorded(store, within):
    done = within("launch", *HERE, "storage.uri=nonsense://here")
    assert done.returncode == 2
    assert "storage.uri: 'nonsense://here'" in done.stderr
    assert json.loads(within("status", "--json").stdout) == []
