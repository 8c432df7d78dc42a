"""How fast lines of attempts reach the database, against Python's own log file."""

from __future__ import annotations

import logging
import tempfile
import threading
from pathlib import Path
from time import perf_counter

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.controller.output_recorder import MOST_WAITING, OutputRecorder
from orchestrator.error_boundary import BestEffort
from orchestrator.messages import LogLine
from tests.benchmarks.table import Row, in_rounds
from tests.build import header, plan, stage

LINES, AT_ONCE, ROUNDS = 200_000, 5_000, 5
LINE = LogLine(0, "step 1234: loss 0.1234, 12,345 tokens/s, as long as such lines are " + "." * 30)


def rows() -> list[Row]:
    """Write lines into a file and into a database, in turns."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            theirs.append(LINES / _file(Path(folder)))
            ours.append(LINES / _database(Path(folder)))
    name = "log lines into the database, against logging.FileHandler"
    return [in_rounds(name, ours, theirs, unit="lines/s", goal="ratio >= 0.9")]


def _file(folder: Path) -> float:
    """Return the seconds in which a file gets the lines."""
    handler = logging.FileHandler(folder / "log")
    logger = logging.Logger("lines", logging.INFO)  # noqa: LOG001 - one of this round alone
    logger.addHandler(handler)
    began = perf_counter()
    for _ in range(LINES):
        logger.info("[%d] %s", LINE.rank, LINE.text)
    handler.close()
    return perf_counter() - began


def _database(folder: Path) -> float:
    """Return the seconds in which the database, and pages, have the lines."""
    store = SqlDatabase(folder / "events.db")
    store.create(header(plan(stage("s")), "run"), 1.0)
    artifacts, best_effort = wiring.artifact_store(folder.as_uri()), BestEffort()
    began = perf_counter()
    with OutputRecorder(store, artifacts, "run", wiring.clock(), best_effort) as recorder:
        for _ in range(LINES // AT_ONCE):
            for _ in range(AT_ONCE):
                recorder.observe("s", 1, LINE)
            while recorder.waiting > MOST_WAITING // 2:
                threading.Event().wait(0.001)
    seconds = perf_counter() - began
    store.close()
    if best_effort.untold:
        raise RuntimeError(f"lines were lost: {best_effort.untold}")
    return seconds
