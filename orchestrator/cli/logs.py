"""`orchestrator logs`: what the stages of a run wrote."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from orchestrator import wiring
from orchestrator.adapters import log_files
from orchestrator.cli import runs
from orchestrator.cli.exits import Exit, of_state
from orchestrator.control.presence import Presence
from orchestrator.core.errors import NotFoundError
from orchestrator.core.run import Run
from orchestrator.ports import EventStore

SECONDS_BETWEEN_LOOKS = 0.3


def run(args: argparse.Namespace) -> Exit:
    """Print the logs; with `--follow` go on until the run ends, and tell how."""
    at = wiring.home()
    store = wiring.event_store(at)
    header = store.header(args.run)
    names = [planned.stage.name for planned in header.plan.stages]
    if args.stage and args.stage not in names:
        message = f"run {header.run!r} has no stage {args.stage!r}; stages: {', '.join(names)}"
        raise NotFoundError(message)
    folder = at / "logs" / header.run
    tail = _Tail(folder, args.stage)
    _print(tail.new())
    final = runs.load(store, header)
    if not args.follow:
        return Exit.SUCCEEDED
    return of_state(_follow(store, final, tail).state)


def _follow(store: EventStore, one: Run, tail: _Tail) -> Run:
    while not one.done and runs.presence(store, one) is not Presence.GONE:
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
