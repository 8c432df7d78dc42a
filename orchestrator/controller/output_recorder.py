"""Keeps what attempts print, report and have done so far, for whoever asks the database.

Lines are gathered and written once a second, sooner where they are many, by a thread of its own: a
slow database does not hold the run up. While it is away they wait, as many as there is room for.
What a page holds leaves the database: a mark in the artifact store has it, and a long log fills no
table.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Self, TypeAlias

from orchestrator.core.artifact_paths import log_page
from orchestrator.core.errors import UnstorableError
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.messages import Failed, LogLine, Message, Progress, Report, Succeeded
from orchestrator.ports import ArtifactStore, Clock, LogChunk, OutputStore

SECONDS_BETWEEN_WRITES = 1.0
SECONDS_TO_FINISH = 10.0
MUCH = 1_000_000  # characters that are not kept waiting
MOST_WAITING = 8_000_000  # characters that a database which is away has not taken yet
PAGE = 1_000_000  # characters of an attempt that the database keeps until they become a page
SHORT = 50_000  # an attempt that has ended with no more than this stays in the database
UNTOLD, UNTOLD_NOTES = "log lines were not written", "reports were not written"

Place: TypeAlias = tuple[str, int]  # a stage and the number of an attempt


class OutputRecorder:
    """Records the output of one run's attempts, in its thread while it is entered."""

    def __init__(
        self,
        store: OutputStore,
        artifacts: ArtifactStore,
        run: str,
        clock: Clock,
        best_effort: BestEffort,
    ) -> None:
        """Hold nothing."""
        self._store, self._artifacts, self._run = store, artifacts, run
        self._clock, self._best_effort = clock, best_effort
        self._lines: dict[Place, list[str]] = {}
        self._notes: dict[tuple[Place, str], Callable[[], None]] = {}
        self._chunks: list[LogChunk] = []
        self._waiting, self._at = 0, 0.0
        self._error: Exception = RuntimeError("it came faster than the database takes lines")
        self._unpaged: Counter[Place] = Counter()
        self._ended: set[Place] = set()
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Write what is left; what the database does not take now is counted."""
        for event in (self._closing, self._urgent, self._news):
            event.set()
        self._thread.join(SECONDS_TO_FINISH)
        with self._lock:
            lines = _lines_of(self._chunks) + sum(map(len, self._lines.values()))
            lost = {UNTOLD: lines, UNTOLD_NOTES: len(self._notes)}
        for what, count in lost.items():
            if count:
                self._best_effort.failed(what, self._error, count)

    @property
    def waiting(self) -> int:
        """How many characters of lines the database has not taken yet."""
        return self._waiting

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Take in what an attempt says; what ends it is written before this returns."""
        place = (stage, attempt)
        if isinstance(message, LogLine):
            self._add(place, f"[{message.rank}] {message.text}\n")
        elif isinstance(message, Report):
            text = (message.name, message.text)
            self._note(
                place, message.name, partial(self._store.note_report, self._run, place, *text)
            )
        elif isinstance(message, Progress):
            self._note(place, "", partial(self._store.note_progress, self._run, place, message))
        elif isinstance(message, Failed):
            failure = message.failure
            detail = f"{failure.detail}\n" if failure.detail else ""
            self._add(place, f"{detail}{failure.kind}: {failure.evidence}\n")
        elif not isinstance(message, Succeeded):
            return
        if isinstance(message, Failed | Succeeded):
            self._ended.add(place)
            self.write()
        if not self._news.is_set():
            self._news.set()

    def _note(self, place: Place, name: str, note: Callable[[], None]) -> None:
        with self._lock:
            self._notes[place, name] = note

    def _add(self, place: Place, text: str) -> None:
        with self._lock:
            full = self._waiting + len(text) > MOST_WAITING
            if not full:
                self._lines.setdefault(place, []).append(text)
                self._waiting += len(text)
        if self._waiting > MUCH and not self._urgent.is_set():
            self._urgent.set()
        if full:
            self._best_effort.failed(UNTOLD, self._error)

    # --- writing -------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            self._urgent.clear()
            away = not self.write()
            self.page()
            if away:
                self._news.set()
                self._closing.wait(SECONDS_BETWEEN_WRITES)
            elif not self._closing.is_set():
                self._urgent.wait(SECONDS_BETWEEN_WRITES)
        self.write()
        self.page()

    def write(self) -> bool:
        """Write what waits; return whether the database took it."""
        with self._writing:
            self._gather()
            chunks = list(self._chunks)
            add = partial(self._store.add_log, self._run, chunks)
            if not self._settled(UNTOLD, add, _lines_of(chunks)):
                return False
            with self._lock:
                self._waiting -= sum(len(chunk.text) for chunk in chunks)
                del self._chunks[: len(chunks)]
            for chunk in chunks:
                self._unpaged[chunk.stage, chunk.attempt] += len(chunk.text)
            return self._write_notes()

    def _settled(self, what: str, call: Callable[[], None], count: int = 1) -> bool:
        """Return whether there is no need to try again: it is stored, or refused for good."""
        error = outcome(call, but=()).error
        if isinstance(error, UnstorableError):
            self._best_effort.failed(what, error, count)
        elif error is not None:
            self._error = error
            return False
        return True

    def _gather(self) -> None:
        """Make chunks of the lines that wait. No two have the same time."""
        with self._lock:
            self._at = max(self._clock.now(), self._at + 1e-5)
            for (stage, attempt), lines in self._lines.items():
                text = "".join(lines)
                self._chunks.append(LogChunk(stage=stage, attempt=attempt, at=self._at, text=text))
            self._lines = {}

    def _write_notes(self) -> bool:
        with self._lock:
            notes, self._notes = self._notes, {}
        while notes:
            key, note = notes.popitem()
            if not self._settled(UNTOLD_NOTES, note):
                with self._lock:
                    self._notes = {**notes, key: note, **self._notes}
                return False
        return True

    # --- pages ---------------------------------------------------------------------------------

    def page(self) -> None:
        """Move what has become long enough into the artifact store."""
        for place, size in list(self._unpaged.items()):
            ended = place in self._ended
            if size < (SHORT if ended else PAGE):
                continue
            turn = partial(self._turn, *place)
            self._best_effort.tell("logs were not moved to the artifact store", turn, but=())
            del self._unpaged[place]  # where it failed its next page has this one's lines too

    def _turn(self, stage: str, attempt: int) -> None:
        """Write the attempt's chunks as a page, then let that stand for them."""
        stored = self._store.log_chunks(self._run, stage=stage, attempt=attempt)
        chunks = [chunk for chunk in stored if not chunk.page]
        if not chunks:
            return
        last = chunks[-1]
        name = log_page(self._run, stage, attempt, last.id)
        lines = [{"id": c.id, "at": c.at, "text": c.text} for c in chunks]
        text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        self._artifacts.mark(name, text)
        self._store.page_log(self._run, replace(last, text="", page=name))


def _lines_of(chunks: list[LogChunk]) -> int:
    return sum(chunk.text.count("\n") for chunk in chunks)
