"""A line of JSON for each request that has ended; never a word of a prompt or an answer.

Lines are made and written by a thread: no request waits for the disk. A file that was moved away,
as by logrotate, is made anew.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

from orchestrator.error_boundary import outcome, reason

STANDARD_OUTPUT = "-"
_MOST = 1000  # lines of one writing
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """What is remembered of a request; `at` is seconds since the epoch, times are in seconds.

    `first_token_s` is None where there was no stream. `revision` is empty where none was asked.
    """

    at: float
    request_id: str
    client: str
    method: str
    path: str
    status: int
    duration_s: float
    trace_id: str = ""
    key: str = ""
    endpoint: str = ""
    revision: str = ""
    queued_s: float = 0.0
    first_token_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def line(self) -> str:
        """Return the record as JSON, in one line."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["at"] = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        plain = {k: round(v, 6) if isinstance(v, float) else v for k, v in fields.items()}
        return json.dumps(plain, separators=(",", ":"))


class AccessLog:
    """Writes records to the file `place`, or to standard output where that is `-`."""

    def __init__(self, place: str) -> None:
        """Begin; the file is made with the first line, for its owner alone."""
        self._place = place
        self._queue: SimpleQueue[RequestRecord | None] = SimpleQueue()
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    def add(self, record: RequestRecord) -> None:
        """Have a record written, soon."""
        self._queue.put(record)

    def close(self) -> None:
        """Write what is left, and end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        going = True
        while going:
            records = [self._queue.get()]
            while not self._queue.empty() and len(records) < _MOST:
                records.append(self._queue.get())
            going = None not in records
            self._tell(outcome(lambda: self._write(records), but=()).error)  # noqa: B023 - called at once

    def _write(self, records: Sequence[RequestRecord | None]) -> None:
        text = "".join(f"{record.line()}\n" for record in records if record is not None)
        if self._place == STANDARD_OUTPUT:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        path = Path(self._place)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        with path.open("ab", buffering=0) as file:  # whole lines, whoever else writes here
            file.write(text.encode())

    def _tell(self, error: Exception | None) -> None:
        trouble = "" if error is None else reason(error)
        if trouble and trouble != self._trouble:
            logger.warning("the access log can't be written: %s", trouble)
        self._trouble = trouble
