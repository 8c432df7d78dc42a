"""Several hosts on this machine: each a set of namespaces (net, mount, uts, ipc, pid).

They share nothing but the network, and read-only this machine's programs, the checkout and the
environment of Python, or the root file system that a host is given in place of these. A host's
processes, folders and interfaces end with its process 1, and that ends with this process. Needs
root, iproute2 and util-linux.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.supervisor.record import wait

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NET = "10.178.0"
GATEWAY = f"{NET}.254"  # to nowhere: programs find their address by the route there
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount")
SPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
NEW_HOST = ("unshare", *SPACES, "--mount-proc", "--fork", "--kill-child")
OWN_SWITCH = ("unshare", "--net", "sh", "-c", "echo ready; exec cat")
WORK = "/srv/project"
PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
PLAIN = {"HOME": "/root", "PATH": PATH, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups")
SECONDS = 120.0


class Process:
    """What runs on a host."""

    def __init__(self, entered: subprocess.Popen[bytes], output: Path, begun: int) -> None:
        """Know the process that entered the host; the command is its child.

        What it prints is what `output` has after `begun` bytes.
        """
        self._entered, self._output, self._begun = entered, output, begun
        wait(lambda: bool(_children(entered.pid)) or not self.running, SECONDS, tick=0.01)
        self.pid = next(iter(_children(entered.pid)), 0)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._entered.poll() is None

    def printed(self) -> str:
        """Return what it has printed."""
        return self._output.read_bytes()[self._begun :].decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        if self.running and self.pid:
            os.kill(self.pid, number)

    def finish(self, seconds: float = SECONDS) -> int:
        """Wait for its end; return its exit status."""
        return self._entered.wait(seconds)

    def stop(self, seconds: float = 20.0) -> None:
        """Have it end, by force where it does not by itself."""
        self.signal(signal.SIGTERM)
        try:
            self.finish(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.finish(seconds)


@dataclass(frozen=True)
class Root:
    """A root file system at `folder`, and by what user and variables commands run in it.

    `orchestrator` are the words that call the product there.
    """

    folder: str = "/"
    python: str = sys.executable
    orchestrator: tuple[str, ...] = (sys.executable, "-m", "orchestrator")
    env: Mapping[str, str] = field(default_factory=lambda: PLAIN)
    user: tuple[str, ...] = ()
    owner: int = 0  # of the folder in which commands are typed


MACHINE = Root()


@dataclass
class Host:
    """A host: `h0` at 10.178.0.1, and so on; `env` is what each of its commands is given."""

    name: str
    address: str
    pid: int
    logs: Path
    root: Root = MACHINE
    env: dict[str, str] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)

    def path(self, path: str) -> Path:
        """Return a file of the host as this process sees it; relative ones lie in `WORK`."""
        return Path(f"/proc/{self.pid}/root", str(Path(WORK, path)).lstrip("/"))

    def write(self, path: str, text: str) -> None:
        """Write a file of the host."""
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)

    def command(self, *words: str, user: Sequence[str] = (), **env: str) -> list[str]:
        """Return what runs `words` there; it is told to end when whoever waits for it is gone."""
        given = {**self.root.env, **self.env, **env}
        variables = [f"{name}={value}" for name, value in given.items()]
        entering = ("nsenter", "--target", str(self.pid), *SPACES, "--")
        ending = ("setpriv", *(user or self.root.user), "--pdeathsig", "TERM", "--")
        clean = ("env", "--ignore-environment", f"--chdir={WORK}")
        return [*entering, *ending, *clean, *variables, *words]

    def start(self, *words: str, name: str, user: Sequence[str] = (), **env: str) -> Process:
        """Start a command that goes on; what it prints is in a file of this machine."""
        output = self.logs / f"{self.name}-{name}.log"
        argv = self.command(*words, user=user, **env)
        with output.open("ab") as file:
            begun = file.tell()
            entered = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.started.append(Process(entered, output, begun))
        return self.started[-1]

    def run(
        self, *words: str, seconds: float = SECONDS, user: Sequence[str] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*words, user=user, **env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def python(self, *words: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """Run the Python that has the product to its end."""
        return self.run(self.root.python, *words, seconds=seconds)

    def listens(self, port: int) -> bool:
        """Whether something on the host listens at a port."""
        table = Path(f"/proc/{self.pid}/net/tcp").read_text()
        rows = [line.split() for line in table.splitlines()[1:]]
        return any(int(row[1].rpartition(":")[2], 16) == port and row[3] == "0A" for row in rows)

    def processes(self) -> list[int]:
        """Return what runs there, by the numbers of this machine."""
        everything = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        own = _space(self.pid)
        return [pid for pid in everything if pid != self.pid and _space(pid) == own]

    def die(self) -> None:
        """End all that runs there, at once and without a word."""

        def killed() -> bool:
            left = self.processes()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        assert wait(killed, SECONDS, tick=0.05), self.processes()


class Network:
    """The hosts and what joins them: a switch with a port for each."""

    def __init__(self, switch: int, hosts: Sequence[Host]) -> None:
        self._switch, self.hosts = switch, hosts

    def cut(self, host: Host) -> None:
        """Take the cable of a host out."""
        _ip(self._switch, "link", "set", host.name, "down")

    def heal(self, host: Host) -> None:
        """Put the cable of a host in."""
        _ip(self._switch, "link", "set", host.name, "up")

    def lose(self, host: Host, other: Host) -> None:
        """Lose all that a host sends to another one, which it hears none the less."""
        _ip(host.pid, "route", "add", "blackhole", f"{other.address}/32")

    def find(self, host: Host, other: Host) -> None:
        """End that."""
        _ip(host.pid, "route", "del", "blackhole", f"{other.address}/32")

    def mend(self) -> None:
        """Put all cables in, and lose nothing any more."""
        for host in self.hosts:
            self.heal(host)
            _ip(host.pid, "route", "flush", "type", "blackhole")

    @contextmanager
    def slow(self, milliseconds: float, loss: float) -> Iterator[None]:
        """Have so long a round trip between any two hosts, and lose so much of it, in percent."""
        pairs = []
        for host in self.hosts:
            near, far = f"{host.name}-near", f"{host.name}-far"
            _ip(self._switch, "link", "add", near, "type", "veth", "peer", "name", far)
            _ip(self._switch, "link", "set", host.name, "nomaster")
            for device in (near, far, host.name):
                _ip(self._switch, "link", "set", device, "up", "promisc", "on")
            _ip(self._switch, "link", "set", far, "master", "bridge")
            pairs.append(f"{host.name}:{near}")
        entering = ("nsenter", "--target", str(self._switch), "--net", "--")
        ending = ("setpriv", "--pdeathsig", "KILL", "--")
        # A round trip passes four ports, and each takes and loses its part.
        figures = (str(milliseconds / 4), str(100 * (1 - (1 - loss / 100) ** 0.25)))
        argv = (*entering, *ending, sys.executable, str(HERE / "relay.py"), *figures, *pairs)
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as relaying:
            try:
                assert relaying.stdout is not None
                assert relaying.stdout.readline() == b"ready\n"
                yield
            finally:
                relaying.kill()
                for host in self.hosts:
                    _ip(self._switch, "link", "del", f"{host.name}-near")
                    _ip(self._switch, "link", "set", host.name, "master", "bridge")


def lacking() -> str:
    """Return why there can be no hosts here; empty where they can be made."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent:
        return f"needs {', '.join(absent)}, of iproute2 and util-linux"
    argv = [*NEW_HOST, "ip", "link", "add", "eth0", "type", "veth"]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        return "namespaces can't be made here"
    return ""


@contextmanager
def several_hosts(
    number: int, logs: Path, roots: Sequence[Root] = (), **env: str
) -> Iterator[Network]:
    """Have so many hosts, joined by a switch; `env` is given to all their commands.

    The first have `roots`, the others this machine's.
    """
    with ExitStack() as stack:
        switch = stack.enter_context(_lasting(OWN_SWITCH))
        _ip(switch, "link", "add", "bridge", "type", "bridge")
        _ip(switch, "link", "set", "bridge", "up")
        _ip(switch, "addr", "add", f"{GATEWAY}/24", "dev", "bridge")
        given = [*roots, *[MACHINE] * (number - len(roots))]
        hosts = [stack.enter_context(_host(i, logs, env, given[i])) for i in range(number)]
        for host in hosts:
            port = ("link", "add", host.name, "type", "veth", "peer", "name", "eth0")
            _ip(switch, *port, "netns", str(host.pid))
            _ip(switch, "link", "set", host.name, "master", "bridge", "up")
            _ip(host.pid, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip(host.pid, "link", "set", device, "up")
            _ip(host.pid, "route", "add", "default", "via", GATEWAY)
        yield Network(switch, hosts)


@contextmanager
def _host(number: int, logs: Path, env: Mapping[str, str], root: Root) -> Iterator[Host]:
    name, started = f"h{number}", list[Process]()
    interpreter = (sys.executable, "-S", "-E", str(HERE / "process_one.py"))
    first = (*interpreter, name, root.folder, *_shared())
    try:
        with _lasting((*NEW_HOST, *first)) as unshared:
            pid = _children(unshared)[0]
            host = Host(name, f"{NET}.{number + 1}", pid, logs, root, dict(env), started)
            host.path("").mkdir(parents=True)
            os.chown(host.path(""), root.owner, root.owner)
            yield host
    finally:
        for process in started:  # they have ended with the host
            process.finish()


def _shared() -> list[str]:
    """Return the folders that all hosts read: the checkout, and Python with its environment."""
    folders = sorted({ROOT, Path(sys.prefix), Path(sys.base_prefix)})
    outermost = [f for f in folders if not any(other in f.parents for other in folders)]
    return [str(folder) for folder in outermost]


@contextmanager
def _lasting(argv: Sequence[str]) -> Iterator[int]:
    """Have a process that ends with its stdin, which is ours; yield its number."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.stdin.close()
            process.wait(SECONDS)


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        numbers = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # it has ended
        return []
    return [int(number) for number in numbers.split()]


def _space(pid: int) -> str:
    """Return the namespace in which a process has its number."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:  # it has ended
        return ""


def _ip(pid: int, *words: str) -> None:
    """Run `ip` in the network of a process."""
    argv = ["nsenter", "--target", str(pid), "--net", "--", "ip", *words]
    subprocess.run(argv, check=True, capture_output=True)
