"""What is left of a worker that died: the end of its own files, and what its node knows.

A dying process often can't send its last words any more, but they stand in the files that Ray
keeps of it, and the failure that it told beside them; what killed it stands in the kernel's log,
or the maker's own tool knows. All of it is fetched by one small task on the node, within a few
seconds; where that may not or can not be, there is nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from orchestrator.adapters.raycluster import exit_codes, last_words, process, ray_errors
from orchestrator.adapters.raycluster.cgroup import oom_kills
from orchestrator.adapters.raycluster.process import WorkerProcess
from orchestrator.core.settings import PATIENT
from orchestrator.messages import Failed

MOST_WORKERS = 16  # of a gang that dies as a whole
LINES = 50
MOST_KNOWN = 5  # lines of the node: the worker's own last words are to stay among the last
_TAIL_BYTES = 65_536
_RAYS_MARKS = (":job_id:", ":actor_name:", ":task_name:")  # by which it tells whose lines follow
_TOOL_SECONDS = 2.0
_KERNEL = Path("/dev/kmsg")
_KERNEL_SECONDS = 300.0
_OF_THE_KERNEL = "kernel: "
_RECORD_BYTES = 8192
_LINK = Path("/proc/self/ns/pid")
_FIRST_SPACE = "pid:[4026531836]"  # of process numbers: that of the kernel itself
_KILLED = re.compile(r"Killed process (\d+)|oom-kill:.*\bpid=(\d+)")
_OF_CHIPS = re.compile(
    r"NVRM|\bXid\b|amdgpu.*(error|fault|hang|reset|timeout)|\b(davinci|hisi|devdrv)\b.*(err|fault)"
    r"|Hardware Error|Machine check|\bmce:|EDAC .*\b[UC]E\b",
    re.IGNORECASE,
)
# The tools of makers that know of broken chips: command, and the lines that say so.
TOOLS: Mapping[tuple[str, ...], re.Pattern[str]] = {
    ("nvidia-smi", "-q", "-d", "ECC,ROW_REMAPPER"): re.compile(
        r"(Pending|Remapping Failure Occurred)\s*:\s*Yes", re.IGNORECASE
    ),
    ("npu-smi", "info"): re.compile(r"\b(Alarm|Critical)\b"),
    ("rocm-smi", "--showrasinfo"): re.compile(r"uncorrectable.*[1-9]", re.IGNORECASE),
    ("cnmon", "info"): re.compile(r"Health\s*:\s*(?!Good|OK)\w+", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Remains:
    """The last lines that are known of a worker, and the failure that it told, if it told one."""

    lines: tuple[str, ...]
    failed: Failed | None = None


class PostMortem:
    """Fetches what is left of the dead workers of one attempt, within `seconds`.

    A node under load takes some to begin a task.
    """

    def __init__(
        self, now: Callable[[], float] = time.monotonic, seconds: float = PATIENT.remains
    ) -> None:
        """Look after nobody yet."""
        self._now, self._seconds = now, seconds
        self._refs: dict[int, Any] = {}
        self._until: float | None = None
        self._seen: set[int] = set()

    @property
    def pending(self) -> bool:
        """Whether something may still come."""
        if self._until is not None and self._now() > self._until:
            self._refs.clear()
        return bool(self._refs)

    def begin(self, rank: int, worker: WorkerProcess | None) -> None:
        """Ask for what is left of worker `rank`, which died as `worker`."""
        if worker is None or rank in self._seen or len(self._seen) >= MOST_WORKERS:
            return
        self._seen.add(rank)
        self._until = self._now() + self._seconds if self._until is None else self._until
        with suppress(*ray_errors.ERRORS):
            self._refs[rank] = process.on(worker.node, remains).remote(worker)

    def arrived(self) -> Iterator[tuple[int, Remains]]:
        """Yield what has come since: the worker, and what is left of it."""
        refs = list(self._refs.values())
        ready = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else ())
        for rank, ref in [*self._refs.items()]:
            if ref not in ready:
                continue
            del self._refs[rank]
            with suppress(*ray_errors.ERRORS):
                yield rank, ray.get(ref)


def remains(
    worker: WorkerProcess, known_here: Callable[[WorkerProcess], list[str]] | None = None
) -> Remains:
    """Return what is left of `worker` on this node: the ends of its files, then what is known."""
    lines: list[str] = []
    failed: Failed | None = None
    for path, begin in worker.files:
        with suppress(OSError):
            lines += tail(Path(path), begin)
        lines += exit_codes.exit_lines(Path(path))
        failed = failed or last_words.last_failure(Path(path))
    return Remains((*lines, *(known_here or _known_here)(worker)[-MOST_KNOWN:]), failed)


def _known_here(worker: WorkerProcess) -> list[str]:
    """Return what the kernel and the tools of makers know of the end of `worker`."""
    known = [*kernel_lines(_kernel_records(), worker.pid, time.monotonic()), *tool_lines()]
    if not any(_KILLED.search(line) for line in known):
        known = [*of_memory(worker.oom_kills, oom_kills()), *known]
    return known


def of_memory(before: int | None, now: int | None) -> Iterator[str]:
    """Yield that the kernel has ended processes since a worker began, if it has."""
    if before is not None and now is not None and now > before:
        what = f"{now - before} processes of its container since the worker began"
        yield f"{_OF_THE_KERNEL}Memory cgroup out of memory: Killed process, {what}"


def of_the_node(line: str) -> bool:
    """Whether `line` is what the node knows, and not what the worker wrote."""
    return line.startswith((_OF_THE_KERNEL, *(f"{command[0]}: " for command in TOOLS)))


def tail(path: Path, begin: int = 0) -> list[str]:
    """Return the last lines of the file at `path`, of those after its first `begin` bytes.

    A file that is shorter than that was begun anew since.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin if begin <= size else 0, size - _TAIL_BYTES))
        text = file.read().decode(errors="backslashreplace")
    lines = (line for line in text.splitlines() if line.strip())
    return [line for line in lines if not line.startswith(_RAYS_MARKS)][-LINES:]


def kernel_lines(
    records: Iterable[str], pid: int, now: float, *, contained: bool | None = None
) -> list[str]:
    """Return what the kernel logged lately of chips, and of the end of process `pid`.

    `now` is by the clock of the kernel's log. That the kernel killed another process is no news of
    this one; where numbers are those of a container they can't be compared, and all are taken.
    Whether this process is `contained` is looked at where `None`.
    """
    lines, contained = [], _in_container() if contained is None else contained
    for record in records:
        head, _, text = record.partition(";")
        fields = head.split(",")
        when = int(fields[2]) / 1e6 if len(fields) > 2 and fields[2].isdecimal() else 0.0  # noqa: PLR2004 - priority, number, time
        line = text.split("\n", 1)[0]
        killed = _KILLED.search(line)
        ours = killed is not None and (str(pid) in killed.groups() or contained)
        if now - when <= _KERNEL_SECONDS and (ours or _OF_CHIPS.search(line)):
            lines.append(f"{_OF_THE_KERNEL}{line}")
    return lines[-LINES:]


def _in_container() -> bool:
    with suppress(OSError):
        return str(_LINK.readlink()) != _FIRST_SPACE
    return True


def _kernel_records() -> Iterator[str]:
    """Yield the records of the kernel's log, where this process may read it."""
    with suppress(OSError):
        log = os.open(_KERNEL, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:
                with suppress(BrokenPipeError):  # a record was overwritten: the next one follows
                    yield os.read(log, _RECORD_BYTES).decode(errors="backslashreplace")
        except BlockingIOError:
            return  # that was the last one
        finally:
            os.close(log)


def tool_lines(seconds: float = _TOOL_SECONDS) -> Iterator[str]:
    """Yield what the tools of makers say of broken chips, each within `seconds`."""
    for command, tells in TOOLS.items():
        if shutil.which(command[0]) is None:
            continue
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(  # noqa: S603 - of the table above
                command, capture_output=True, text=True, timeout=seconds, check=False
            )
            lines = (line.strip() for line in done.stdout.splitlines())
            yield from (f"{command[0]}: {line}" for line in lines if tells.search(line))
