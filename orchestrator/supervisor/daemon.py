"""The daemon of a service: `python -m orchestrator.supervisor.daemon SPEC`.

It leaves its starter, leads a session that all it starts belongs to, starts the processes in
order, each in a group with a log of its own, reaps them, and records what becomes of them. On
SIGTERM it ends them, last first. A process that ends is recorded, and restarted only where that
was asked for: a lost node must be seen. Until all are up a process may have several tries. When
none is left the daemon goes too.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.supervisor import file_modes
from orchestrator.supervisor import record as records
from orchestrator.supervisor.record import Child, Process, ServiceError, ServiceRecord
from orchestrator.supervisor.service import BUSY, GRACE

_LOCK_TRIES = 0.5
_PROBE = 0.05
_REST = 1.0  # before a process is started again
_TAIL = 8192
_DECISIVE = re.compile(r"error|exception|fatal|denied|in use|no space|not found", re.IGNORECASE)


def main(path: str) -> int:
    """Become the daemon of the service in spec file `path`; return to the starter at once."""
    spec = json.loads(Path(path).read_text())
    folder, service = Path(spec["folder"]), spec["service"]
    held: list[int | None] = [None]

    def locked() -> bool:
        held[0] = records.lock(folder, service)
        return held[0] is not None

    if not records.wait(locked, _LOCK_TRIES):
        return BUSY
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        os.read(reading, 1)  # ends when the daemon has made its first record, or died
        return 0
    os.setsid()
    os.close(reading)
    daemon = Daemon(folder, spec)
    os.close(writing)
    daemon.run()
    return 0


class Daemon:
    """Owns the processes of one service."""

    def __init__(self, folder: Path, spec: Mapping[str, Any]) -> None:
        """Take over from whoever had the service, and make the first record."""
        self._folder = folder
        self._clear(spec["service"])
        self._processes = [Process(**{**p, "argv": tuple(p["argv"])}) for p in spec["processes"]]
        self._popen: dict[str, subprocess.Popen[bytes]] = {}
        self._due: dict[str, float] = {}  # what is to be started again, and when
        self._tries: dict[str, int] = {}  # how often each was started until all were up
        self._deadline = time.monotonic() + spec["timeout"]
        self._timeout = spec["timeout"]
        self._stopping = False
        self._signals = self._listen()
        self._record = ServiceRecord(
            service=spec["service"],
            pid=os.getpid(),
            birth=records.birth(os.getpid()),
            started=time.time(),  # noqa: TID251 - a process of its own: no clock is handed to it
            info=spec["info"],
            temporary=spec["temporary"],
            system=records.system(),
        )
        records.save(folder, self._record)

    def run(self) -> None:
        """Start all, watch until told to stop or nothing is left, and end all."""
        try:
            for process in self._processes:
                self._start(process)
            for process in self._processes:
                self._until_answers(process, process.ready)
            self._record.phase = "up"
            records.save(self._folder, self._record)
            self._due |= {n: 0.0 for n in self._ended if self._process(n).again}
            while not self._stopping and (self._due or self._alive):
                self._watch(self._until_due())
                self._start_again()
        except (ServiceError, OSError) as error:
            self._record.phase, self._record.reason = "failed", str(error)
        self._end()

    @property
    def _ended(self) -> list[str]:
        return [name for name, child in self._record.children.items() if child.exit is not None]

    @property
    def _alive(self) -> bool:
        return any(child.exit is None for child in self._record.children.values())

    def _until_due(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _start_again(self) -> None:
        now = time.monotonic()
        for process in self._processes:
            if not self._stopping and self._due.get(process.name, now + 1) <= now:
                del self._due[process.name]
                self._launch(process, "ab")

    def _try_again(self) -> None:
        """Start those anew that ended before all were up and have tries left."""
        for process in self._processes:
            child = self._record.children.get(process.name)
            tries = self._tries.setdefault(process.name, 1)
            ended = child is not None and child.exit is not None
            if ended and process.name not in self._due and tries < process.tries:
                self._tries[process.name] = tries + 1
                self._due[process.name] = time.monotonic() + _REST * tries
        self._start_again()

    def _clear(self, service: str) -> None:
        """End what an earlier daemon left behind when it was killed."""
        old = records.load(self._folder, service)
        if old is not None:
            old.kill()
            records.erase(self._folder, old)

    @staticmethod
    def _listen() -> int:
        """Turn signals into bytes on a descriptor, so that no handler runs amid other work."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.set_blocking(reading, False)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        return reading

    def _start(self, process: Process) -> None:
        self._until_answers(process, process.after)
        if process.ready and _answers(*process.ready):  # or it would pass for this process
            where = f"{process.ready[0]}:{process.ready[1]}"
            raise ServiceError(f"{process.name}: {where} is in use by another process")
        if not self._stopping:
            self._launch(process, "wb")

    def _launch(self, process: Process, mode: str) -> None:
        log = Path(process.log or self._folder / f"{self._record.service}-{process.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with file_modes.private_file(log).open(mode) as out:
            popen = subprocess.Popen(  # noqa: S603 - what the starter named
                process.argv,
                env={**os.environ, **process.env},  # noqa: TID251 - a child inherits it
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0,
            )
        self._popen[process.name] = popen
        self._record.children[process.name] = Child(popen.pid, records.birth(popen.pid))
        records.save(self._folder, self._record)

    def _until_answers(self, process: Process, address: tuple[str, int] | None) -> None:
        while address and not self._stopping and not _answers(*address):
            self._try_again()
            lost = next((n for n in self._ended if n not in self._due), None)
            if lost:
                raise ServiceError(
                    f"{lost} ended with {self._exit(lost)}: {self._telling_line(lost)}"
                )
            if time.monotonic() > self._deadline:
                name = process.name if process.name in self._popen else next(iter(self._popen))
                where = f"no answer at {address[0]}:{address[1]} within {self._timeout:g} s"
                raise ServiceError(
                    f"{process.name}: {where}; {name} said: {self._telling_line(name)}"
                )
            self._watch(_PROBE)

    def _watch(self, seconds: float | None) -> None:
        """Wait for a signal, at most for `seconds`; take note of processes that ended."""
        if select.select([self._signals], [], [], seconds)[0]:
            numbers = os.read(self._signals, 512)
            ending = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
            self._stopping |= not ending.isdisjoint(numbers)
        for name, popen in self._popen.items():
            child = self._record.children[name]
            if child.exit is None and popen.poll() is not None:
                child.exit = popen.returncode
                records.save(self._folder, self._record)
                if self._process(name).again and self._record.phase == "up":
                    self._due[name] = time.monotonic() + _REST

    def _end(self) -> None:
        deadline = time.monotonic() + GRACE
        for popen in reversed(self._popen.values()):
            if popen.poll() is None:
                popen.terminate()
            try:
                popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        self._record.kill()
        if self._record.phase == "failed":
            records.save(self._folder, self._record)  # the starter reads why, and erases it
        else:
            records.erase(self._folder, self._record)

    def _process(self, name: str) -> Process:
        return next(process for process in self._processes if process.name == name)

    def _exit(self, name: str) -> str:
        code = self._record.children[name].exit or 0
        return f"code {code}" if code >= 0 else signal.Signals(-code).name

    def _telling_line(self, name: str) -> str:
        """Return the line of the log of process `name` that tells most."""
        process = self._process(name)
        log = Path(process.log or self._folder / f"{self._record.service}-{name}.log")
        text = log.read_bytes()[-_TAIL:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [line for line in lines if _DECISIVE.search(line)] or lines
        return telling[-1] if telling else f"nothing (see {str(log)!r})"


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
