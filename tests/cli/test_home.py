"""A home that can't hold the state: one line that names it, what is wrong, and what to do."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import wiring
from tests.conftest import Command

HERE = ("cluster=local", "tracking=none", "pipeline=noop")
VERBS = [
    ("status",),
    ("launch", *HERE),
    ("up",),
    ("down", "--yes"),
    ("keys", "add", "bob"),
]
# A home below the folder of the test, what is said of it, and the way out.
BAD = {
    "a" * 300: ("File name too long", "set ORCHESTRATOR_HOME to a shorter path"),
    "file": ("it is a file, or would lie in one", "set ORCHESTRATOR_HOME to a folder that can"),
    "file/home": ("it is a file, or would lie in one", "set ORCHESTRATOR_HOME to a folder that"),
}


def assert_told(error: str, home: Path, what: str, way: str) -> None:
    assert len(error.splitlines()) == 1, error
    assert error.startswith(f"error: the home {str(home)[:40]!r}"[:-1])
    assert f"can't hold the state: {what}" in error
    assert f"; {way}" in error
    assert "Errno" not in error


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("name", BAD, ids=lambda name: name[:9])
def test_a_home_that_cannot_be_made_is_told_by_every_verb(
    within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, verb: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / name))
    done = within(*verb)
    assert (done.returncode, done.stdout) == (1, "")
    assert_told(done.stderr, tmp_path / name, *BAD[name])


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_home_whose_path_is_no_text_is_told_by_every_verb(
    within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "h\udcff"))
    done = within(*verb)
    assert (done.returncode, done.stdout) == (1, "")
    assert "can't hold the state: its path is no text in UTF-8; set ORCHESTRATOR_HO" in done.stderr


@pytest.mark.parametrize("verb", [*VERBS, ("plan", *HERE)], ids=" ".join)
def test_a_working_folder_that_is_gone_is_told_by_every_verb(
    within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = within(*verb)
    told = "the working folder can't be used: No such file or directory; change to another one"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {told}\n")


@pytest.mark.parametrize("name", BAD, ids=lambda name: name[:9])
def test_what_only_plans_needs_no_home(
    within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / name))
    for words in (("plan", *HERE), ("launch", *HERE, "--dry-run")):
        assert within(*words).returncode == 0


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """A folder in which nothing can be made: root would be let in, and disks are not full."""

    def refuse(folder: Path, number: int) -> None:
        def opened(path: object, *args: object, **options: object) -> int:
            if Path(str(path)).is_relative_to(folder):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *args, **options)  # type: ignore[arg-type]

        real = os.open
        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)  # noqa: ARG005

    return refuse


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (errno.EACCES, "let this user write there, or set ORCHESTRATOR_HOME"),
        (errno.EROFS, "set ORCHESTRATOR_HOME to a folder that can be written"),
        (errno.ENOSPC, "free some space, or set ORCHESTRATOR_HOME"),
    ],
)
def test_a_home_that_cannot_be_written_is_told(
    within: Command,
    tmp_path: Path,
    refusing: Callable[[Path, int], None],
    number: int,
    way: str,
) -> None:
    home = tmp_path / ".orchestrator"
    home.mkdir()
    refusing(home, number)
    for verb in (("status",), ("launch", *HERE)):
        assert_told(within(*verb).stderr, home, os.strerror(number), way)
    checks = json.loads(within("doctor", "--json").stdout)
    assert [one["status"] for one in checks if one["check"] == "home"] == ["error"]


def test_what_is_refused_later_names_the_home_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))

    def told(number: int, path: Path | None) -> str:
        return wiring.refusal(OSError(number, os.strerror(number), path and str(path)))

    assert told(errno.EPERM, tmp_path / "services") == (
        f"the home {str(tmp_path)!r} can't hold the state: Operation not permitted at 'services'; "
        "let this user write there, or set ORCHESTRATOR_HOME to a folder that can be written"
    )
    assert told(errno.ENOENT, Path("/elsewhere")) == "'/elsewhere': No such file or directory"
    assert told(errno.ENOSPC, None) == "No space left on device"
