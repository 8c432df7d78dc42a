"""`orchestrator logs`: what the stages of a run wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator import session, wiring
from orchestrator.adapters import log_files
from orchestrator.cli import runs
from orchestrator.cli.exits import Exit, of_state
from orchestrator.controller.lease import LeasedRuns, LeaseState
from orchestrator.core.errors import NotFoundError
from orchestrator.core.runs.run import Run
from orchestrator.core.text import visible
from orchestrator.ports import Leases
from orchestrator.supervisor import holder

SECONDS_BETWEEN_LOOKS = 0.3


def run(args: argparse.Namespace) -> Exit:
    """Print the logs; with `--follow` go on until the run ends, and tell how.

    Raises:
        NotFoundError: There is no such stage, or the logs are on another machine.
    """
    at = wiring.home()
    store = wiring.event_store(at)
    header = store.header(args.run)
    names = [planned.stage.name for planned in header.plan.stages]
    if args.stage and args.stage not in names:
        message = f"run {header.run!r} has no stage {args.stage!r}; stages: {', '.join(names)}"
        raise NotFoundError(message)
    folder, one = at / "logs" / header.run, runs.load(store, header)
    began = any(stage.attempts for stage in one.stages.values())
    if not folder.is_dir() and (began or not args.follow):
        return _nothing(store, one, folder)
    tail = _Tail(folder, args.stage)
    _print(tail.new())
    if args.follow:
        one = _follow(store, runs.load(store, header), tail)
    elsewhere = _driven_elsewhere(store, one)
    if elsewhere:
        print(f"What it writes now is {elsewhere}.", file=sys.stderr)
    return of_state(one.state) if args.follow else Exit.SUCCEEDED


def _nothing(store: Leases, one: Run, folder: Path) -> Exit:
    """Say why a run has no logs here: nothing of it has run, or it ran on another machine.

    Raises:
        NotFoundError: They are elsewhere.
    """
    name = one.header.run
    if not any(stage.attempts for stage in one.stages.values()):
        why = f": {visible(one.reason)}" if one.reason else ""
        print(f"Run {name} has no logs: nothing of it has run{why}.")
        return Exit.SUCCEEDED
    launched = f"on {one.header.tags.get(session.HOST, 'another machine')}"
    where = _driven_elsewhere(store, one) or f"where it was driven, perhaps {launched}"
    message = f"the logs of run {name!r} are not in {str(folder.parent)!r}: they are {where}"
    raise NotFoundError(f"{message}; ask there, or set ORCHESTRATOR_HOME to its home")


def _driven_elsewhere(store: Leases, one: Run) -> str:
    """Return where the controller of a run is; empty where it is on this machine, or gone."""
    lease = store.lease(one.header.run)
    if lease is None or holder.lives(lease.holder) is not None:
        return ""
    return f"with its controller ({holder.told(lease.holder) or 'on another machine'})"


def _follow(store: LeasedRuns, one: Run, tail: _Tail) -> Run:
    while not one.done and runs.lease_state(store, one) is not LeaseState.GONE:
        wiring.clock().sleep(SECONDS_BETWEEN_LOOKS)
        one = runs.load(store, one.header)
        _print(tail.new())
    return one


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)


class _Tail:
    """Reads what was added to the log files since the last look, whole lines only."""

    def __init__(self, folder: Path, stage: str | None) -> None:
        self._folder = folder
        self._stage = stage
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[str]:
        for path in log_files.existing(self._folder, self._stage):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                yield f"({path.stem}) {line}"
