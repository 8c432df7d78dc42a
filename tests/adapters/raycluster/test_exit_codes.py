"""A process that ends itself at once says with which code, and its children do not."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from orchestrator.adapters.raycluster import exit_codes


def run(script: str) -> subprocess.CompletedProcess[str]:
    begins = "import os\nfrom orchestrator.adapters.raycluster import exit_codes\n"
    command = [sys.executable, "-c", begins + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("code", [0, 13])
def test_the_last_line_of_a_process_tells_its_code(code: int) -> None:
    done = run(f"""
        with exit_codes.announced():
            os.write(2, b"xyzzy")
            os._exit({code})
        """)
    *before, last = done.stderr.splitlines()
    assert (done.returncode, exit_codes.code(last), before) == (code, code, ["xyzzy"])


NATIVE = {
    "exit": (77, ["exit(77) ended this process"]),
    "exit_zero": (0, ["exit(0) ended this process"]),
    "_exit": (77, []),
    "killed": (-signal.SIGKILL, []),
    "killed_after_its_child": (-signal.SIGKILL, []),
    "exit_by_a_thread": (77, ["exit(77) ended this process"]),
}


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "on_exit"), reason="of glibc alone")
@pytest.mark.parametrize("how", NATIVE)
def test_the_code_of_an_exit_by_native_code_is_left_beside_the_output(
    tmp_path: Path, how: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import ctypes, os, signal, sys, threading
        from orchestrator.adapters.raycluster import exit_codes
        libc = ctypes.CDLL(None)
        def killed_after_its_child():
            if os.fork() == 0:
                libc.exit(3)
            os.wait()
            killed()
        def killed(): os.kill(os.getpid(), signal.SIGKILL)
        def exit(): libc.exit(77)
        def exit_zero(): libc.exit(0)
        def _exit(): libc._exit(77)
        def exit_by_a_thread():
            threading.Thread(target=exit).start()
            threading.Event().wait(30)
        for _ in range(2):  # a process may run several attempts
            with exit_codes.announced():
                pass
        with exit_codes.announced():
            libc.fflush(None)
            globals()[sys.argv[1]]()
        """)
    )
    output = tmp_path / "worker.err"
    with output.open("wb") as stderr:
        done = subprocess.run(
            [sys.executable, script, how], stderr=stderr, timeout=60, check=False
        )
    assert (done.returncode, exit_codes.exit_lines(output)) == NATIVE[how]
    assert not output.read_bytes()


def test_where_nothing_was_noted_nothing_is_told(tmp_path: Path) -> None:
    assert exit_codes.exit_lines(tmp_path / "worker.err") == []


def test_beside_an_output_that_is_deleted_nothing_is_left(tmp_path: Path) -> None:
    output = tmp_path / "worker.err"
    code = "from orchestrator.adapters.raycluster import exit_codes as e\nwith e.announced(): pass"
    with output.open("wb") as stderr:
        output.unlink()
        subprocess.run([sys.executable, "-c", code], stderr=stderr, timeout=60, check=True)
    assert [*tmp_path.iterdir()] == []


def test_a_child_ends_without_a_word() -> None:
    done = run("""
        with exit_codes.announced():
            child = os.fork()
            if child == 0:
                os._exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        """)
    assert (done.returncode, done.stderr) == (0, "")


def test_afterwards_all_is_as_before() -> None:
    before = os._exit
    with exit_codes.announced():
        assert os._exit is not before
    assert os._exit is before
    assert exit_codes.code("step 7") is None
