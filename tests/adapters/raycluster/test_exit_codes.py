"""A process that ends itself at once says with which code, and its children do not."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from orchestrator.adapters.raycluster import exit_codes


def run(script: str) -> subprocess.CompletedProcess[str]:
    begins = "import os\nfrom orchestrator.adapters.raycluster import exit_codes\n"
    command = [sys.executable, "-c", begins + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("code", [0, 13])
def test_the_last_line_of_a_process_tells_its_code(code: int) -> None:
    done = run(f"""
        with exit_codes.told():
            os.write(2, b"xyzzy")
            os._exit({code})
        """)
    *before, last = done.stderr.splitlines()
    assert (done.returncode, exit_codes.code(last), before) == (code, code, ["xyzzy"])


def test_a_child_ends_without_a_word() -> None:
    done = run("""
        with exit_codes.told():
            child = os.fork()
            if child == 0:
                os._exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        """)
    assert (done.returncode, done.stderr) == (0, "")


def test_afterwards_all_is_as_before() -> None:
    before = os._exit
    with exit_codes.told():
        assert os._exit is not before
    assert os._exit is before
    assert exit_codes.code("step 7") is None
