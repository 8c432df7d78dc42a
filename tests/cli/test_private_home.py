"""What is in a home is its owner's alone, whichever command makes it and whatever umask it has."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters import mlflow_server
from orchestrator.adapters.raycluster import machine
from orchestrator.supervisor import file_modes
from orchestrator.wiring import home_folder
from tests.conftest import Command

LOCALLY = ("cluster=local", "tracking=none", "pipeline=noop")
SHUT = ("events.db", "secret", "services", "logs", "mlflow")
FIRST = [
    ("launch", *LOCALLY),
    ("up", *LOCALLY),
    ("keys", "add", "bob"),
    ("status",),
    ("db", "copy", "before.db", ".orchestrator/events.db"),
]


@pytest.fixture(params=[0o022, 0o000], ids="umask {:03o}".format)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a folder, of a mode and with a file in it, that `ORCHESTRATOR_HOME` names."""

    def make(name: str, mode: int, *files: str) -> Path:
        home = tmp_path / name
        home.mkdir()
        for file in files:
            (home / file).touch()
        home.chmod(mode)
        monkeypatch.setenv("ORCHESTRATOR_HOME", str(home))
        return home

    return make


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def open_to_others(folder: Path) -> list[str]:
    """Return what others may use of what stands in a folder that they may enter."""
    return [f"{name} {mode:03o}" for name, mode in modes(folder).items() if mode & 0o077]


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("first", FIRST, ids=" ".join)
def test_nobody_else_enters_a_home(within: Command, tmp_path: Path, first: list[str]) -> None:
    if first[0] == "db":
        assert within("keys", "add", "bob").returncode == 0
        (tmp_path / ".orchestrator").rename(tmp_path / "old")
        # This process may still hold it open, so its file and its log are copied as one.
        with contextlib.closing(sqlite3.connect(tmp_path / "old/events.db")) as database:
            database.execute("VACUUM INTO ?", (str(tmp_path / "before.db"),))
    assert within("plan", *LOCALLY).returncode == 0
    done = within(*first)
    assert done.returncode == 0, done.stderr
    home = tmp_path / ".orchestrator"
    assert home.stat().st_mode & 0o777 == 0o700
    assert {mode for name, mode in modes(home).items() if name in SHUT} <= {0o700, 0o600}


@pytest.mark.usefixtures("_umask")
def test_a_home_of_the_usual_name_or_an_empty_one_that_lets_others_in_is_narrowed(
    within: Command, named: Callable[..., Path]
) -> None:
    for name, *files in ((".orchestrator", "README"), ("mine",)):
        home = named(name, 0o777, *files)
        assert within("status").stderr == ""
        assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("_umask")
def test_in_a_folder_that_others_may_enter_all_that_is_made_is_shut(
    within: Command, named: Callable[..., Path]
) -> None:
    home = named("ours", 0o755, "README")
    for verb in (("launch", *LOCALLY), ("keys", "add", "bob")):
        done = within(*verb)
        assert (done.returncode, "can write" in done.stderr) == (0, False), done.stderr
    mlflow_server._prepare(home)
    (home / "README").unlink()
    assert home.stat().st_mode & 0o777 == 0o755, "it may be meant for others too"
    assert open_to_others(home) == []
    assert {"events.db", "artifacts", "mlflow", "services"} <= modes(home).keys()
    assert modes(home / "mlflow") == {"artifacts": 0o700, "mlflow.db": 0o600}
    (check,) = (c for c in json.loads(within("doctor", "--json").stdout) if c["check"] == "home")
    assert check["status"] == "warning"
    assert "others may enter (mode 0755); `chmod 700` it" in check["finding"]


def test_where_others_could_put_other_state_in_its_place_a_line_says_so(
    within: Command, named: Callable[..., Path]
) -> None:
    home = named("everybodys", 0o1777, "README")
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr(home_folder.logger, "warning", lambda *words: lines.append(words))
        within("status")
    (line,) = {text % tuple(rest) for text, *rest in lines}
    assert line.startswith(f"others can write to the home {str(home)!r} (mode 1777)")


@pytest.mark.usefixtures("_umask")
def test_a_database_of_before_and_its_journals_are_narrowed(
    within: Command, tmp_path: Path
) -> None:
    assert within("keys", "add", "bob").returncode == 0
    home = tmp_path / ".orchestrator"
    with sqlite3.connect(home / "events.db") as held:  # so that the journals stay
        held.execute("SELECT count(*) FROM keys").fetchone()
        for file in home.glob("events.db*"):
            file.chmod(0o644)
        assert within("keys", "add", "ann").returncode == 0
        found = {name: mode for name, mode in modes(home).items() if name.startswith("events.db")}
        assert found == {"events.db": 0o600, "events.db-shm": 0o600, "events.db-wal": 0o600}
    held.close()


@pytest.mark.usefixtures("_umask")
def test_the_folder_for_sockets_of_a_cluster_is_its_owners_alone(tmp_path: Path) -> None:
    root = machine.root(tmp_path)
    try:
        root.chmod(0o755)
        assert machine.root(tmp_path).stat().st_mode & 0o777 == 0o700
    finally:
        root.rmdir()


def test_no_device_is_narrowed(tmp_path: Path) -> None:
    """As root, to whom it belongs, that would shut `/dev/null` to all others."""
    before = Path("/dev/null").stat().st_mode
    file_modes.narrow(Path("/dev/null"), file_modes.FILE)
    assert Path("/dev/null").stat().st_mode == before
