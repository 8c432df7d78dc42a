"""What a worker process writes past Python is heard, once, in order, and stays in its files."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.messages import LogLine
from orchestrator.worker.message_queue import MOST_LINES, MessageQueue
from orchestrator.worker.native_output import LONGEST_LINE, MOST_BYTES, NativeOutput, _Stream

WORKER = """
import json, sys
from pathlib import Path
from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.clock import SystemClock
from orchestrator.worker import native_output
from orchestrator.worker.attempt import stream
from orchestrator.messages import LogLine
from tests.worker.conftest import Bench, FakeProcessGroup

folder = Path(sys.argv[1])
print(":task_name:x")
print("before")
bench = Bench(folder, "nativejobs", FsspecArtifactStore(str(folder / "store")))
said = open(folder / "said.json", "w")
with native_output.followed(sys.argv[2:]):
    for batch in stream(bench.request(), rank=2, rendezvous=None, store=bench.store,
                        clock=SystemClock(), process_group=FakeProcessGroup()):
        for message in batch:
            if isinstance(message, LogLine):
                assert message.rank == 2
                print(json.dumps(message.text), file=said, flush=True)
            last = message
print(json.dumps(type(last).__name__), file=said, flush=True)
print("after")
"""


def heard(
    folder: Path, source: str, *secrets: str, pipes: bool = False
) -> tuple[list[str], str, int]:
    """Run a job in a worker process: return its lines, what its files hold, and its exit."""
    place = folder / "nativejobs"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("")
    (place / "jobs.py").write_text(textwrap.dedent(source))
    command = [sys.executable, "-c", WORKER, str(folder), *secrets]
    if pipes:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        files = done.stdout + done.stderr
    else:
        with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
            done = subprocess.run(command, stdout=out, stderr=err, timeout=60, check=False)
        files = (folder / "out").read_bytes() + (folder / "err").read_bytes()
    said = [json.loads(line) for line in (folder / "said.json").read_text().splitlines()]
    return said, files.decode(errors="backslashreplace"), done.returncode


WRITES = r"""
    import ctypes, os, subprocess, sys
    def job(ctx):
        print("printed")
        os.write(2, b"native \xff\n")
        ctx.log("logged")
        print("to stderr \ud83d", file=sys.stderr)
        subprocess.run([sys.executable, "-c", "import sys; print('child', file=sys.stderr)"])
        os.write(2, b"10%\r100%\n")
        os.write(1, b"to one\n")
        ctypes.CDLL(None).printf(b"held back by C")
    """


@pytest.mark.parametrize("pipes", [False, True])
def test_whoever_writes_is_heard_once_and_in_the_order_of_each_file(
    tmp_path: Path, *, pipes: bool
) -> None:
    said, files, code = heard(tmp_path, WRITES, pipes=pipes)
    assert code == 0, files
    *lines, outcome = said
    assert outcome == "Succeeded"
    to_one = {"to one", "held back by C"}
    assert [line for line in lines if line not in to_one] == [
        "printed",
        r"native \xff",
        "logged",
        r"to stderr \ud83d",
        "child",
        "100%",
    ]
    assert [line for line in lines if line in to_one] == ["to one", "held back by C"]
    for line in ("before\n", "after", "printed", "logged", "child", "to one", "held back by C"):
        assert files.count(line) == 1, files


@pytest.mark.parametrize("pipes", [False, True])
def test_no_secret_stays_in_the_files_of_a_worker(tmp_path: Path, *, pipes: bool) -> None:
    said, files, code = heard(
        tmp_path,
        """
        import os, subprocess, sys, time
        def job(ctx):
            print("printed: xyzzy-of-one")
            os.write(2, b"native: xyzzy-")
            time.sleep(0.6)
            os.write(2, b"of-one, and the end of two\\n")
            subprocess.run([sys.executable, "-c", "print('child: xyzzy-of-one')"])
            os.write(1, b"without an end: the end of two")
        """,
        "xyzzy-of-one",
        "first of two\nthe end of two",
        pipes=pipes,
    )
    assert code == 0, files
    assert said[-1] == "Succeeded"
    assert "printed: ***" in said
    native = f"native: {'*' * 12}, and {'*' * 14}\n"
    if pipes:  # what was passed on before the rest came is out
        native = f"native: xyzzy-{'*' * 6}, and {'*' * 14}\n"
    for line in ("printed: ***\n", native, f"child: {'*' * 12}\n"):
        assert line in files, files
    assert "of-one" not in files
    assert "end of two" not in files


def test_what_a_dying_worker_says_last_stands_in_its_files(tmp_path: Path) -> None:
    said, files, code = heard(
        tmp_path,
        """
        import os, signal
        def job(ctx):
            print("printed last")
            ctx.log("logged last")
            os.write(2, b"terminate called after throwing an instance of 'c10::Error'")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert code != 0
    assert "Succeeded" not in said
    assert files.index("printed last") < files.index("logged last") < files.index("terminate")


def test_nobody_waits_for_a_child_that_holds_the_files_open(tmp_path: Path) -> None:
    said, _, code = heard(
        tmp_path,
        """
        import subprocess, sys
        def job(ctx):
            subprocess.Popen(
                [sys.executable, "-c", "import time; print('child', flush=True); time.sleep(300)"],
                stdin=subprocess.PIPE,
            )
            print("done")
        """.replace("time.sleep(300)", "import sys; sys.stdin.read()"),
        pipes=False,
    )
    assert code == 0
    assert said[-1] == "Succeeded"
    assert "done" in said


def test_a_job_that_closes_its_descriptors_is_heard_still(tmp_path: Path) -> None:
    said, _, code = heard(
        tmp_path,
        """
        import os
        def job(ctx):
            os.close(2)
            print("printed")
            ctx.log("logged")
        """,
    )
    assert (said, code) == (["printed", "logged", "Succeeded"], 0)


FORKS = """
    import os, signal, threading
    from orchestrator.worker import native_output, output_capture
    def job(ctx):
        held, go = threading.Event(), threading.Event()
        def holds():
            with native_output.following()._lock, output_capture._lock:
                held.set()
                go.wait(20)
        threading.Thread(target=holds).start()
        held.wait(20)
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            print("from a child", flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        go.set()
        ctx.log(f"ended by {status}")
    """


def test_a_child_that_is_forked_while_others_write_can_print(tmp_path: Path) -> None:
    said, files, code = heard(tmp_path, FORKS)
    assert code == 0, files
    assert said == ["from a child", "ended by 0", "Succeeded"]


# --- a stream that is read now and then ---------------------------------------------------------


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[tuple[Path, _Stream]]:
    path = tmp_path / "file"
    path.write_bytes(b"")
    with path.open("rb") as reader:
        yield path, _Stream(99, reader.fileno(), 0)


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_a_line_is_told_when_it_is_whole(stream: tuple[Path, _Stream]) -> None:
    path, followed = stream
    append(path, b"a\nhal")
    assert list(followed.lines()) == ["a"]
    append(path, b"f\n:actor_name:x\nend")
    assert list(followed.lines()) == ["half"]
    assert list(followed.rest()) == ["end"]
    assert list(followed.rest()) == []


def test_a_letter_that_comes_in_two_parts_is_one_letter(stream: tuple[Path, _Stream]) -> None:
    path, followed = stream
    append(path, "ä".encode()[:1])
    assert list(followed.lines()) == []
    append(path, "ä".encode()[1:] + b"\n")
    assert list(followed.lines()) == ["ä"]


def test_a_line_without_end_is_cut(stream: tuple[Path, _Stream]) -> None:
    path, followed = stream
    append(path, b"x" * (2 * LONGEST_LINE + 5))
    assert [len(line) for line in followed.lines()] == [LONGEST_LINE, LONGEST_LINE]
    assert [len(line) for line in followed.rest()] == [5]


def test_who_lags_far_behind_leaves_some_out_and_says_so(stream: tuple[Path, _Stream]) -> None:
    path, followed = stream
    append(path, b"x\n" * (16 * MOST_BYTES))
    first, *lines = followed.lines()
    assert first == f"{31 * MOST_BYTES} bytes were not kept: printed faster than they are read"
    assert len(lines) == MOST_BYTES // 2


def test_a_file_that_was_cut_short_is_followed_from_its_new_end(
    stream: tuple[Path, _Stream],
) -> None:
    path, followed = stream
    append(path, b"before\n")
    assert list(followed.lines()) == ["before"]
    path.write_bytes(b"")
    assert list(followed.lines()) == []
    append(path, b"after\n")
    assert list(followed.lines()) == ["after"]


class Full(NativeOutput):
    """Output to a file system without room, of which nothing is read."""

    def __init__(self) -> None:
        pass

    def write(self, line: str) -> bool:
        return False

    def lines(self) -> list[str]:
        return ["native"] * (MOST_LINES + 2)

    def rest(self) -> list[str]:
        return []


def test_a_line_for_which_there_is_no_room_is_told_all_the_same() -> None:
    outbox = MessageQueue(3, Full())
    outbox.line(LogLine(3, "printed"))
    first, *_, last = outbox.drain()
    assert first == LogLine(3, "printed")
    assert last == LogLine(3, "3 lines were not kept: printed faster than they are read")
