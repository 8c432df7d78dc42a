"""What is recorded of a service, and which live processes the record speaks of.

The record is `HOME/services/NAME.json`; whoever holds a lock on `NAME.lock` owns it.

Rules: standard library only, for the daemon stays small; a process id is trusted only while the
birth of the process is the recorded one, so no foreign process is ever signalled.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.core.errors import OrchestratorError
from orchestrator.supervisor import file_modes

TICK = 0.02
KILL_GRACE = 5.0
_PROC = Path("/proc")
_BOOT = _PROC / "sys/kernel/random/boot_id"
_SPACE = _PROC / "self/ns/pid"
_GROUP, _SESSION = 2, 3  # fields of /proc/PID/stat, from the state on


class ServiceError(OrchestratorError):
    """A service can't be started or stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a service.

    Attributes:
        name: Name within the service.
        argv: Command and arguments.
        env: Variables set beside those of the command that starts the service.
        after: Host and port that must answer before this process is started.
        ready: Host and port that must answer before the service counts as up.
        log: File for what it prints; `HOME/services/SERVICE-NAME.log` where empty.
        again: Whether it is started again when it ends by itself.
        tries: How often it is started at most until the service is up, each time after a longer
            rest: on a busy machine what it needs may come late, or its port be taken a moment.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, int] | None = None
    ready: tuple[str, int] | None = None
    log: str = ""
    again: bool = False
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is up: its daemon, its live processes, and what its starter noted.

    `exited` has the exit codes of processes that ended by themselves; `started` is seconds since
    the epoch.
    """

    name: str
    pid: int
    processes: Mapping[str, int]
    info: Mapping[str, object]
    started: float
    exited: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Child:
    """A process that the daemon started; `exit` is its exit code once it ended."""

    pid: int
    birth: str | None
    exit: int | None = None


@dataclass(slots=True)
class ServiceRecord:
    """All that is written down of a service. `phase` is starting, up or failed.

    `system` names the host, its boot and its space of process ids; empty in an earlier record.
    """

    service: str
    pid: int
    birth: str | None
    started: float
    info: Mapping[str, object]
    temporary: list[str]
    phase: str = "starting"
    reason: str = ""
    children: dict[str, Child] = field(default_factory=dict)
    system: str = ""

    @property
    def foreign(self) -> bool:
        """Whether its process ids are of another host, another boot or another container."""
        space, here = self.system.partition("/")[2], system().partition("/")[2]
        return bool(space) and space != here

    @property
    def owned(self) -> bool:
        """Whether the daemon lives, and can be seen from here."""
        return not self.foreign and self.birth is not None and birth(self.pid) == self.birth

    def public(self) -> Service:
        """Return what callers may know."""
        living = {n: c.pid for n, c in self.children.items() if c.exit is None}
        exited = {n: c.exit for n, c in self.children.items() if c.exit is not None}
        return Service(self.service, self.pid, living, self.info, self.started, exited)

    def living(self) -> list[int]:
        """Return the processes that are the service's for certain, the daemon left out."""
        if self.foreign:
            return []
        leaders = [c.pid for c in self.children.values() if c.birth and birth(c.pid) == c.birth]
        foreign = birth(self.pid) not in {None, self.birth}  # the number was given away again
        members = () if foreign else _members(self.pid, _SESSION)
        return list(dict.fromkeys((*leaders, *(pid for pid in members if pid != self.pid))))

    def kill(self) -> None:
        """Kill all that is left: the groups, then whatever made a group of its own."""
        for child in () if self.foreign else reversed(self.children.values()):
            if child.birth and birth(child.pid) == child.birth:
                send(child.pid, signal.SIGKILL, group=True)
        wait(self._killed, KILL_GRACE)

    def _killed(self) -> bool:
        left = self.living()
        for pid in left:
            send(pid, signal.SIGKILL)
        return not left


# --- on disk ----------------------------------------------------------------------------------


def folder_of(home: Path) -> Path:
    """Return where the services of `home` are recorded."""
    return home.absolute() / "services"


def load(folder: Path, service: str) -> ServiceRecord | None:
    """Return what is recorded of `service`.

    Raises:
        ServiceError: The record can't be read.
    """
    path = folder / f"{service}.json"
    try:
        raw = json.loads(path.read_text())
        children = {name: Child(**child) for name, child in raw.pop("children").items()}
        return ServiceRecord(**raw, children=children)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"service {service!r}: {str(path)!r} can't be read ({error}); delete it"
        raise ServiceError(message) from error


def save(folder: Path, record: ServiceRecord) -> None:
    """Write the record, whole or not at all."""
    path = folder / f"{record.service}.json"
    new = path.with_suffix(".new")
    file_modes.private_file(new).write_text(json.dumps(asdict(record), indent=1))
    new.replace(path)


def erase(folder: Path, record: ServiceRecord) -> None:
    """Remove the temporary folders and the record."""
    for path in record.temporary:
        shutil.rmtree(path, ignore_errors=True)
    (folder / f"{record.service}.json").unlink(missing_ok=True)


def lock(folder: Path, service: str) -> int | None:
    """Take the lock of `service` and return its descriptor, or `None` when it is held."""
    descriptor = os.open(folder / f"{service}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def elsewhere(folder: Path, service: str) -> str:
    """Return where `service` runs, if out of the sight of this process; empty where it does not.

    Its daemon holds the lock as long as it lives, wherever that is.
    """
    record = load(folder, service)
    if record is None or not record.foreign:
        return ""
    held = lock(folder, service)
    if held is not None:
        os.close(held)
        return ""
    host = record.system.partition("/")[0]
    return host if host != socket.gethostname() else f"{host}, in another container"


# --- live processes ---------------------------------------------------------------------------


def birth(pid: int) -> str | None:
    """Return when `pid` was started, in the system's own words; `None` when it is dead."""
    if (_PROC / "self").exists():
        fields = _stat(pid)
        return fields[19] if fields else None
    argv = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    words = subprocess.run(argv, capture_output=True, text=True, check=False).stdout  # noqa: S603 - a number
    return None if not words.strip() or words.startswith("Z") else words.split(None, 1)[1]


def system() -> str:
    """Return `HOST/BOOT SPACE`: this machine since its start, and its space of process ids."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    space = _SPACE.readlink().name if _SPACE.is_symlink() else ""
    return f"{socket.gethostname()}/{boot} {space}".strip()


def send(pid: int, number: signal.Signals, *, group: bool = False) -> None:
    """Signal a process or its group; one that is gone already is fine."""
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return


def wait(condition: Callable[[], bool], seconds: float, tick: float = TICK) -> bool:
    """Wait until `condition` holds, at most for `seconds`; return whether it does."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(tick)
    return True


def group_lives(leader: int) -> bool:
    """Whether any of a process group lives. Who has ended and is not yet reaped does not."""
    if not (_PROC / "self").exists():
        try:
            os.killpg(leader, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    return any(True for _ in _members(leader, _GROUP))


def _stat(pid: int) -> list[str]:
    """Return the fields that Linux shows of a living process, from its state on."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] in "ZX" else fields


def _members(leader: int, field: int) -> Iterator[int]:
    """Yield the living processes of a group or session."""
    for path in _PROC.glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields and int(fields[field]) == leader:
            yield int(path.name)
