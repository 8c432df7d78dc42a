"""The processes of a command: started together, ended together, and what they say."""

from __future__ import annotations

import errno
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from time import monotonic
from typing import IO, TypeAlias

from jobs.commands.descendants import Descendants

LONGEST = 65_536  # bytes of a line; what is longer is read in parts
_SHOWN = 8_000  # characters of a line in a log
_WAITING = 5_000  # lines that nobody has read yet; more wait in the pipe
_TAIL = 50
_OTHERS_SECONDS = 5.0  # that the others have to end by themselves when one has failed
_REST_SECONDS = 1.0  # until what was killed has nothing left to say
_LEFT_SECONDS = 2.0  # that what a command leaves behind has to end by itself
_PAUSE = 0.05  # between two looks whether they have ended
# What it is that a program is not there, or is none; all else is of the host that shall start it.
_NO_PROGRAM = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP}
)
_SHELL_CODES = {126: "can't be run", 127: "is not there"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line that the process of a number has written."""

    process: int
    text: str

    def parts(self) -> list[str]:
        """Return it in parts that a log takes."""
        begins = range(0, max(len(self.text), 1), _SHOWN)
        return [self.text[begin : begin + _SHOWN] for begin in begins]


_Hear: TypeAlias = Callable[[Sequence[Line]], None]


def _unheard(_lines: Sequence[Line]) -> None:
    """Have lines read by nobody."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process has failed: its exit code, or the negative number of a signal, and words."""

    code: int
    line: str


class Processes:
    """The processes of a command in one worker."""

    def __init__(
        self, argv: Sequence[str], environments: Sequence[Mapping[str, str]], workdir: Path
    ) -> None:
        """Start one for each environment, in a group of its own.

        Raises:
            CommandNotFoundError: There is no such program.
            OSError: The host can't start it now.
        """
        self._argv = argv
        self._lines: Queue[Line] = Queue(_WAITING)
        self._tails = [deque[str](maxlen=_TAIL) for _ in environments]
        self._started: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._over = threading.Event()
        self._descendants = Descendants()
        try:
            for number, environment in enumerate(environments):
                self._start(number, environment, workdir)
        except OSError as error:
            self.end(0.0)
            if error.errno not in _NO_PROGRAM:
                raise
            what = f"command {argv[0]!r} can't be run: {error.strerror}"
            raise CommandNotFoundError(f"{what}; name a program of the pool's hosts") from error

    def _start(self, number: int, environment: Mapping[str, str], workdir: Path) -> None:
        process = subprocess.Popen(  # noqa: S603 - whoever owns the pipeline names it
            self._argv,
            cwd=workdir,
            env={**environment, **self._descendants.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._started.append(process)
        if process.stdout is not None:
            reads = (number, process.stdout)
            self._readers.append(threading.Thread(target=self._read, args=reads, daemon=True))
            self._readers[-1].start()

    def running(self) -> bool:
        """Whether any of them runs."""
        return any(process.poll() is None for process in self._started)

    def failed(self, telling: Container[int] = ()) -> int | None:
        """Return the number of a process that has failed, `None` where none did: the first one.

        One whose exit code is `telling` goes before others, which it may have brought down.
        """
        codes = [process.poll() for process in self._started]
        failed = [number for number, code in enumerate(codes) if code]
        return min(failed, key=lambda number: codes[number] not in telling, default=None)

    def succeeded(self) -> bool:
        """Whether all have ended, with 0; one that even SIGKILL can't end has not."""
        return all(process.poll() == 0 for process in self._started)

    def ending(self, number: int) -> Ending:
        """Return how a process has failed, with the last line that was read of it."""
        code = self._started[number].returncode
        return Ending(code, self._line(number, code))

    def lines(self, seconds: float) -> list[Line]:
        """Return what has been said since the last call; wait so long for a first line."""
        lines: list[Line] = []
        with suppress(Empty):
            lines.append(self._lines.get(timeout=seconds))
            while len(lines) < _WAITING:
                lines.append(self._lines.get_nowait())
        return lines

    def rest(self, seconds: float = _OTHERS_SECONDS) -> list[Line]:
        """Return what is left to say, once they have ended."""
        until = monotonic() + seconds
        lines: list[Line] = []
        while any(reader.is_alive() for reader in self._readers) and monotonic() < until:
            lines += self.lines(0.05)
        return [*lines, *self.lines(0.0)]

    def leftovers(self) -> list[str]:
        """Return what still runs, in words, a moment after all have ended by themselves."""
        until = monotonic() + _LEFT_SECONDS
        while (names := self._descendants.names(self._groups)) and monotonic() < until:
            threading.Event().wait(_PAUSE)
        return names

    def end(self, grace: float, hear: _Hear = _unheard) -> None:
        """Have all of them end, with all that they have started: asked first, then killed.

        What they say meanwhile goes to `hear`: a process that finds no reader can't end.
        """
        until = monotonic() + grace
        try:
            self._descendants.alive(self._groups).send(signal.SIGTERM)
            try:
                self._gone_within(grace, hear)
            finally:  # where `hear` raises they have their time all the same
                if not self._gone_within(until - monotonic(), _unheard):
                    self._gone_within(_OTHERS_SECONDS, how=signal.SIGKILL)
            hear(self.rest(_REST_SECONDS))
        finally:
            self._over.set()

    @property
    def _groups(self) -> frozenset[int]:
        return frozenset(process.pid for process in self._started)

    def _gone_within(
        self, seconds: float, hear: _Hear | None = None, how: signal.Signals | None = None
    ) -> bool:
        """Wait until nothing of it runs; return whether that is so. Send `how` all the while."""
        until = monotonic() + seconds
        while self.running() | bool(alive := self._descendants.alive(self._groups)):
            if how is not None:
                alive.send(how)
            if monotonic() >= until:
                return False
            if hear is None:
                threading.Event().wait(_PAUSE)
            else:
                hear(self.lines(_PAUSE))
        return True

    def _line(self, number: int, code: int) -> str:
        name, which = self._argv[0], f" {number}" if len(self._started) > 1 else ""
        if code < 0:
            return f"process{which} of {name!r} was ended by signal {-code}"
        if code in _SHELL_CODES:
            return (
                f"process{which} of {name!r} ended with {code}: what it names {_SHELL_CODES[code]}"
            )
        said = next((text for text in reversed(self._tails[number]) if text.strip()), "")
        after = f": {said}" if said else ""
        return f"process{which} of {name!r} ended with {code}{after}"

    def _read(self, number: int, stream: IO[bytes]) -> None:
        with stream:
            for raw in iter(lambda: stream.readline(LONGEST), b""):
                if self._over.is_set():
                    return
                self._say(number, raw)

    def _say(self, number: int, raw: bytes) -> None:
        text = raw.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
        self._tails[number].append(text)
        line = Line(number, text)
        while not self._over.is_set():
            with suppress(Full):
                self._lines.put(line, timeout=0.5)
                return


class CommandNotFoundError(Exception):
    """There is no such program, or it is none that can be run."""
