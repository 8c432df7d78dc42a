"""An engine server as a process of its own, which ends with whoever started it.

It leads a process group, in which all that it starts stays, and has a folder of its own for
temporary files. A guard ends both when this process dies; what is left of them when the server
itself dies is ended here. Folders that nobody holds any more, as their guards were killed too, are
removed by the next engine of the node.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from orchestrator.adapters.rayserve.engine_log import LineBudget
from orchestrator.core.address_passwords import is_credential
from orchestrator.node.masking import hidden
from orchestrator.node.scratch import ScratchFolder
from orchestrator.supervisor import orphans
from orchestrator.supervisor import record as records

KEPT = 400  # last lines
_PREFIX = "engine-"
_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0
_DRAIN_SECONDS = 2.0
_LONGEST_LINE = 16_384  # characters; what is longer is several
# What an engine writes before the words of a line: its process, level, time, place in a source.
_HEAD = re.compile(
    r"^(?:\([^)]*\)\s*)?(?:\[?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\]?\s+)?"
    r"(?:\[?\d[\d:./,TZ -]*\]?\s*)?(?:\[[^\]]*\]\s*)?"
)
_RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b(?:: .*|$)")
_USAGE = re.compile(r"\S+: error: .+")
# What is raised by those who wait for what has failed.
_VICTIM = re.compile(r"[Ee]ngine core initialization failed|EngineDeadError|EngineCore failed")

_OURS = re.compile(r"ORCHESTRATOR_(?!WORKER$)")


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what an engine inherits of the variables of its supervisor.

    Neither what is ours nor a credential of the node's user: a model may bring code.
    """
    return {
        name: value
        for name, value in environment.items()
        if not _OURS.match(name) and not is_credential(name, value)
    }


class OwnFolder:
    """A folder of this user alone, which ends with this process, however that ends."""

    def __init__(self) -> None:
        self._scratch = _scratch()
        self.path = self._scratch.path
        self._guard = orphans.guard(0, str(self.path))

    def remove(self) -> None:
        """Remove it with all in it. Safe to call twice."""
        self._scratch.remove()
        if self._guard is not None:
            self._guard.release()
            self._guard = None


class EngineProcess:
    """A running server: `argv` with `environment`, and what it printed last, without `secrets`."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], secrets: Sequence[str] = ()
    ) -> None:
        self._secrets = secrets
        self.lines: deque[str] = deque(maxlen=KEPT)
        self._scratch = _scratch()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the command that a config names
                list(argv),
                env={**environment, "TMPDIR": str(self._scratch.path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
                errors="replace",
            )
        except OSError:
            self._scratch.remove()
            raise
        self.pid = self._process.pid
        _serve_before_others(self.pid)
        self._guard = orphans.guard(self.pid, str(self._scratch.path))
        self._reader = threading.Thread(target=self._read, name="engine-output", daemon=True)
        self._reader.start()

    @property
    def status(self) -> int | None:
        """With which status it ended; `None` while it runs."""
        return self._process.poll()

    def how_it_ended(self) -> str:
        """Return how it ended, in words, with the line that says why."""
        status = self._process.wait()
        self._reader.join(_DRAIN_SECONDS)
        ended = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        why = telling(list(self.lines))
        return f"{ended}: {why}" if why else ended

    def stop(self, grace: float) -> None:
        """End it and all that it started: it has `grace` seconds. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline and self._kill():
            threading.Event().wait(_POLL_SECONDS)
        self._reader.join(_DRAIN_SECONDS)
        self._scratch.remove()
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def _kill(self) -> bool:
        """Kill its group; return whether any of it is left. Some init reaps late, or never."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.poll() is None or records.group_lives(self.pid)

    def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"  # noqa: S101
        budget = LineBudget(time.monotonic())
        with self._process.stdout as lines:
            for printed in iter(partial(lines.readline, _LONGEST_LINE), ""):
                line = hidden(printed, self._secrets)
                self.lines.append(line.rstrip("\n"))
                with suppress(OSError, ValueError):  # a full disk: the engine must not stand still
                    sys.stdout.write(budget.passes(line, time.monotonic()))
                    sys.stdout.flush()


def _scratch() -> ScratchFolder:
    """Return a folder of this process; those that killed ones have left on this node go."""
    return ScratchFolder(Path(tempfile.gettempdir()), _PREFIX)


def _serve_before_others(group: int) -> None:
    """Give a process group the priority of the node, where that is allowed.

    Ray starts its workers with a niceness of 15: what else runs on the host, the gateway among it,
    would go before the answers.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, group, os.getpriority(os.PRIO_PROCESS, os.getppid()))


def telling(lines: Sequence[str]) -> str:
    """Return the line that says why an engine ended: the first that was raised in its last words.

    Those who waited for what failed raise after it, and say less.
    """
    words = [_HEAD.sub("", line).strip() for line in lines]
    raised = [line for line in words if _RAISED.match(line) or _USAGE.match(line)]
    causes = [line for line in raised if not _VICTIM.search(line)]
    return next(iter(causes or raised), next((line for line in reversed(words) if line), ""))
