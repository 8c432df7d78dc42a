"""An engine server as a process: what it says, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.adapters.rayserve.engine_process import EngineProcess, OwnFolder, telling
from orchestrator.supervisor.record import birth, wait

SERVER = Path(__file__).with_name("fake_server.py")
SECONDS = 30.0

pytestmark = pytest.mark.slow

CALLER = """
import os, sys, threading
os.nice(int(os.environ.get("NICE", 0)))
from orchestrator.adapters.rayserve.engine_process import EngineProcess, OwnFolder
files = OwnFolder()
(files.path / "key").write_text("k")
process = EngineProcess([sys.executable, *sys.argv[1:]], {"FAKE_KEY": "k"})
print("server", process.pid, flush=True)
threading.Event().wait()
"""


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that starts an engine, with what else is in its environment."""
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        (tmp_path / "model").mkdir()
        command = [sys.executable, "-c", CALLER, str(SERVER), "0", str(tmp_path / "model"), "n"]
        everything = {**os.environ, **environment}  # noqa: TID251 - handed on
        started.append(
            subprocess.Popen([*command, "well"], stdout=subprocess.PIPE, text=True, env=everything)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def pids_of(caller: subprocess.Popen[str]) -> list[int]:
    """Return the processes of the engine, when they are there."""
    assert caller.stdout is not None
    return [int(caller.stdout.readline().split()[1]) for _ in ("server", "child")]


def test_an_engine_ends_with_a_killed_supervisor(
    caller: Callable[..., subprocess.Popen[str]],
) -> None:
    process = caller()
    pids = pids_of(process)
    assert all(birth(pid) for pid in pids)
    process.kill()
    assert wait(lambda: all(map(ended, pids)), SECONDS)


def test_temporary_files_of_an_engine_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    leaves = "import tempfile; tempfile.mkdtemp(); tempfile.mkdtemp()"
    process = EngineProcess([sys.executable, "-c", leaves], {})
    assert process.how_it_ended() == "with status 0"
    assert len([*tmp_path.glob("engine-*/tmp*")]) == len("ab")
    process.stop(0.0)
    files = OwnFolder()
    assert stat.S_IMODE(files.path.stat().st_mode) == stat.S_IRWXU
    files.remove()
    with pytest.raises(FileNotFoundError):
        EngineProcess([str(tmp_path / "no-engine")], {})
    assert [*tmp_path.iterdir()] == []


def test_temporary_files_of_an_engine_end_with_a_killed_supervisor(
    caller: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = caller(TMPDIR=str(tmp_path))
    pids_of(process)
    assert len([*tmp_path.glob("engine-*")]) == len(["its own", "of what it reads"])
    process.kill()
    assert wait(lambda: not [*tmp_path.glob("engine-*")], SECONDS)


def test_what_is_left_of_an_engine_whose_guards_were_killed_too_goes_with_the_next(
    caller: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living, process = OwnFolder(), caller(TMPDIR=str(tmp_path))
    engine = pids_of(process)
    own = {*tmp_path.glob("engine-*")} - {living.path}
    assert len(own) == 2
    for guard in guards_of(own):
        os.kill(guard, signal.SIGKILL)
    process.kill()
    process.wait(SECONDS)
    for pid in engine:
        os.kill(pid, signal.SIGKILL)
    assert all(folder.exists() for folder in own)

    following = OwnFolder()
    assert {*tmp_path.glob("engine-*")} == {living.path, following.path}
    for folder in (living, following):
        folder.remove()
    assert not [*tmp_path.glob("engine-*")]


def guards_of(folders: set[Path]) -> list[int]:
    """Return the processes that watch over `folders`."""
    names = {str(folder).encode() for folder in folders}
    guards = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if names & {*path.read_bytes().split(b"\0")}:
                guards.append(int(path.parent.name))
    assert len(guards) >= len(folders)
    return guards


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a priority")
def test_an_engine_has_the_priority_of_its_node_not_that_of_a_worker(
    caller: Callable[..., subprocess.Popen[str]],
) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    found = {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids_of(caller(NICE="15"))}
    assert found == {mine}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            [
                "(EngineCore pid=3) ERROR 11-28 22:45:01 [core.py:866] ValueError: No free memory",
                "(APIServer pid=1) RuntimeError: Engine core initialization failed. See above",
            ],
            "ValueError: No free memory",
        ),
        (["usage: api_server.py", "api_server.py: error: unrecognized arguments: --foo"], "api_"),
        (["INFO hello", "it went away", ""], "it went away"),
        ([], ""),
    ],
)
def test_the_line_that_says_why_is_found_among_the_last(lines: list[str], said: str) -> None:
    assert telling(lines).startswith(said)
