"""Start, find and end services.

Rules: nothing is left behind by a start that fails or is interrupted; of two that start one
service at once, one does and both get it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from orchestrator.supervisor import file_modes
from orchestrator.supervisor import record as records
from orchestrator.supervisor.record import Process, Service, ServiceError, ServiceRecord

GRACE = 20.0
BUSY = 3


def start(
    home: Path,
    service: str,
    processes: Sequence[Process],
    *,
    info: Mapping[str, object] | None = None,
    temporary: Sequence[Path] = (),
    timeout: float = 60.0,
) -> Service:
    """Start `service` and return when all of it is ready.

    When the service runs already, or somebody else is starting it, that one is returned: look at
    its `info`. `temporary` folders are removed when the service ends.

    Raises:
        ServiceError: It wasn't ready within `timeout` seconds, and nothing is left behind; or it
            runs on another host.
    """
    folder = records.folder_of(home)
    _check_place(home, service)
    try:
        file_modes.private_folder(folder)
        spec = {
            "folder": str(folder),
            "service": service,
            "processes": [asdict(process) for process in processes],
            "info": dict(info or {}),
            "temporary": [str(path) for path in temporary],
            "timeout": timeout,
        }
        code = _launch(folder, service, json.dumps(spec))
    except OSError as error:
        raise ServiceError(f"service {service!r} can't be recorded: {error}") from error
    if code not in {0, BUSY}:
        raise ServiceError(f"service {service!r} did not start: {last_line(folder, service)}")
    return _await(home, service, ours=code == 0, timeout=timeout + GRACE)


def find(home: Path, service: str) -> Service | None:
    """Return `service` when it is up; forget what is recorded of it when nothing of it lives.

    Raises:
        ServiceError: What is recorded can't be read.
    """
    folder = records.folder_of(home)
    record = records.load(folder, service)
    if record is None:
        return None
    if record.owned:
        return record.public() if record.phase == "up" else None
    if not record.living():
        _forget(folder, record)
    return None


def elsewhere(home: Path, service: str) -> str:
    """Return where `service` runs, if on another host or in another container; else nothing.

    Raises:
        ServiceError: What is recorded can't be read.
    """
    return records.elsewhere(records.folder_of(home), service)


def stop(home: Path, service: str, grace: float = GRACE) -> bool:
    """End `service` and all that it started; return whether there was anything to end.

    What does not end within `grace` seconds is killed. A service whose daemon was killed is
    ended too, by what the daemon recorded.

    Raises:
        ServiceError: What is recorded can't be read, or it runs on another host.
    """
    folder = records.folder_of(home)
    _check_place(home, service)
    record = records.load(folder, service)
    if record is None:
        return False
    existed = record.owned or bool(record.living())
    if record.owned:
        records.send(record.pid, signal.SIGTERM)
        if not records.wait(lambda: not record.owned, grace):
            records.send(record.pid, signal.SIGKILL)
            records.wait(lambda: not record.owned, grace)
    left = records.load(folder, service)
    if left is not None and not left.owned:
        left.kill()
        _forget(folder, left)
    return existed


def clear(home: Path, service: str) -> None:
    """End what is left of `service`, unless somebody is just starting it.

    Raises:
        ServiceError: What is recorded can't be read, or it runs on another host.
    """
    record = records.load(records.folder_of(home), service)
    if record is not None and not (record.owned and record.phase == "starting"):
        stop(home, service)


def last_line(folder: Path, service: str) -> str:
    """Return the last line of the daemon's own log."""
    lines = (folder / f"{service}.log").read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _check_place(home: Path, service: str) -> None:
    host = elsewhere(home, service)
    if host:
        message = f"service {service!r} of {str(home)!r} runs on {host}; type it there"
        raise ServiceError(message)


def _launch(folder: Path, service: str, spec: str) -> int:
    descriptor, path = tempfile.mkstemp(prefix=f"{service}-", suffix=".spec", dir=folder)
    argv = [sys.executable, "-P", "-m", "orchestrator.supervisor.daemon", path]
    try:
        log_file = file_modes.private_file(folder / f"{service}.log")
        with os.fdopen(descriptor, "w") as file, log_file.open("ab") as log:
            file.write(spec)
            file.flush()
            done = subprocess.run(  # noqa: S603 - our own module
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
    finally:
        Path(path).unlink(missing_ok=True)
    return done.returncode


def _await(home: Path, service: str, *, ours: bool, timeout: float) -> Service:
    """Wait until the daemon that has the service says that it is up, or failed."""
    folder, up = records.folder_of(home), False

    def settled() -> bool:
        record = records.load(folder, service)
        return record is not None and (record.phase != "starting" or not record.owned)

    try:
        records.wait(settled, timeout)
        record = records.load(folder, service)
        up = record is not None and record.phase == "up"
    finally:
        if ours and not up:
            stop(home, service)
    if record is None or not up:
        reason = record.reason if record else ""
        raise ServiceError(f"service {service!r} did not start: {reason or 'it was ended'}")
    return record.public()


def _forget(folder: Path, record: ServiceRecord) -> None:
    held = records.lock(folder, record.service)
    if held is None:
        return  # a new daemon has taken over
    try:
        records.erase(folder, record)
    finally:
        os.close(held)
