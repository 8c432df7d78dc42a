"""What a worker does right now, as py-spy reads it from outside: the worker is not asked.

py-spy comes with Ray. It runs beside the worker, on its node, as the user whom Ray's processes run
as, and reads the worker with all that it has started.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path

import psutil
import ray

from orchestrator.adapters.raycluster import process, ray_errors
from orchestrator.core.errors import ClusterError
from orchestrator.error_boundary import reason
from orchestrator.supervisor import record

SECONDS_TO_ANSWER = 60.0  # beside those of a recording: a busy node has to start a process
_FORBIDDEN = "Permission"
_MAY = "its container needs SYS_PTRACE, or its kernel.yama.ptrace_scope to be 0"


def stacks(key: str, rank: int, *, seconds: float = 0.0, form: str = "") -> bytes:
    """Return what worker `rank` of attempt `key` does, with all that it has started.

    Without `seconds` the stacks of all threads, as text; else what they were in over so many
    seconds, in a `form` of py-spy.

    Raises:
        ClusterError: There is no such worker any more, or it can't be looked at.
    """
    worker = process.of(key, rank)
    if worker is None:
        raise ClusterError(f"worker {rank} of attempt {key!r} has not begun, or has ended")
    how = ["record", "--duration", f"{ceil(seconds)}", "--format", form] if seconds else ["dump"]
    answer = process.on(worker.node, spied).remote(worker.pid, worker.birth, how)
    try:
        output, problem = ray.get(answer, timeout=seconds + SECONDS_TO_ANSWER)
    except KeyboardInterrupt:
        ray.cancel(answer)
        raise
    except ray_errors.ERRORS as error:
        raise ClusterError(f"worker {rank} of attempt {key!r}: {reason(error)}") from error
    if problem:
        hint = f"; {_MAY}" if _FORBIDDEN in problem else ""
        raise ClusterError(f"worker {rank} of attempt {key!r}: {problem}{hint}")
    return bytes(output)


def spied(pid: int, birth: str | None, how: Sequence[str]) -> tuple[bytes, str]:
    """Return what py-spy says of the process that was born then, and what is in its way.

    `how` is the command of py-spy, with its options.
    """
    if birth is not None and record.birth(pid) != birth:
        return b"", "its process has ended"
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        return b"", f"its node has no py-spy; `{sys.executable} -m pip install py-spy` there"
    return _dumped(spy, pid) if how[0] == "dump" else _recorded([spy, *how], pid)


def _dumped(spy: str, pid: int) -> tuple[bytes, str]:
    """Return the stacks of a process and of those below it that run, in Python."""
    first, problem = _answer([spy, "dump", "--pid", str(pid)])
    if problem:
        return b"", problem
    below = (_answer([spy, "dump", "--pid", str(child)])[0] for child in _below(pid))
    return b"\n".join([first, *filter(None, below)]), ""


def _recorded(words: Sequence[str], pid: int) -> tuple[bytes, str]:
    """Return what a process was in, with those below it where none of them is in the way.

    One that has ended, and that nobody has waited for, is.
    """
    with tempfile.TemporaryDirectory(prefix="py-spy-") as folder:
        file = Path(folder, "recorded")
        to = [*words, "--output", str(file), "--pid", str(pid)]
        _, problem = _answer([*to, "--subprocesses"])
        if problem:
            _, problem = _answer(to)
        return (b"" if problem else file.read_bytes()), problem


def _below(pid: int) -> list[int]:
    """Return the processes below one that have not ended."""
    with suppress(psutil.Error):
        below = psutil.Process(pid).children(recursive=True)
        return [process.pid for process in below if _runs(process)]
    return []


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _answer(words: Sequence[str]) -> tuple[bytes, str]:
    """Return what py-spy prints, and the first line of why it can't."""
    done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603 - our own words
    if not done.returncode:
        return done.stdout, ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return b"", f"py-spy: {lines[0] if lines else f'ended with {done.returncode}'}"
