"""What a worker does right now, as py-spy reads it from outside: the worker is not asked.

py-spy comes with Ray. It runs beside the worker, on its node, as the user whom Ray's processes run
as, and reads the worker with all that it has started.
"""

from __future__ import annotations

from collections.abc import Sequence

import ray

from orchestrator.adapters.raycluster import process, ray_errors
from orchestrator.core.errors import ClusterError
from orchestrator.error_boundary import reason

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
    how = ["record", "--duration", f"{seconds:.0f}", "--format", form] if seconds else ["dump"]
    answer = process.on(worker.node, spied).remote(worker.pid, worker.birth, how)
    try:
        output, problem = ray.get(answer, timeout=seconds + SECONDS_TO_ANSWER)
    except ray_errors.ERRORS as error:
        raise ClusterError(f"worker {rank} of attempt {key!r}: {reason(error)}") from error
    if problem:
        hint = f"; {_MAY}" if _FORBIDDEN in problem else ""
        raise ClusterError(f"worker {rank} of attempt {key!r}: {problem}{hint}")
    return bytes(output)


def spied(pid: int, birth: str | None, how: Sequence[str]) -> tuple[bytes, str]:
    """Return what py-spy says of the process that was born then, and what is in its way."""
    import shutil
    import subprocess
    import sys
    import tempfile
    from pathlib import Path

    from orchestrator.supervisor import record

    if birth is not None and record.birth(pid) != birth:
        return b"", "its process has ended"
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        return b"", f"its node has no py-spy; `{sys.executable} -m pip install py-spy` there"
    with tempfile.TemporaryDirectory(prefix="py-spy-") as folder:
        file = Path(folder, "recorded")
        to = ["--output", str(file)] if how[0] == "record" else []
        # A child that has ended, which nobody has waited for, stands in py-spy's way.
        for more in (["--subprocesses"], []):
            words = [spy, *how, *to, *more, "--pid", str(pid)]
            done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603 - our own words
            if not done.returncode:
                return (file.read_bytes() if to else done.stdout), ""
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return b"", f"py-spy: {lines[0] if lines else f'ended with {done.returncode}'}"
