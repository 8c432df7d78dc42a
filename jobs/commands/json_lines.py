"""Metrics in a file of JSON lines, read while a command writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from time import monotonic

_LOOK_SECONDS = 2.0
_BLOCK = 4 << 20  # bytes that are read at a time: a line of more is none of metrics


class JsonLines:
    """What is written into a file of JSON lines from now on."""

    def __init__(self, path: Path, step: str) -> None:
        """Leave out what is there already; the field `step` of a line is its step."""
        self._path, self._step = path, step
        self._offset = self._size()
        self._next_look = 0.0
        self._any, self._read_on = False, True
        self.problems: list[str] = []

    @property
    def lacking(self) -> str:
        """What has not been seen, in words; empty where metrics were."""
        what = f"no line with metrics and {self._step!r} was seen in {self._path.name!r}"
        return "" if self._any else what

    def read(self, *, last: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield steps with the metrics that are new since the last look, some seconds ago."""
        now = monotonic()
        if not self._read_on or (now < self._next_look and not last):
            return
        self._next_look = now + _LOOK_SECONDS
        while lines := self._lines(last=last):
            for line in lines:
                values = of_json(line.decode(errors="replace").strip())
                step = values.pop(self._step, float("nan"))
                if values and isfinite(step):
                    self._any = True
                    yield int(step), values

    def _lines(self, *, last: bool) -> list[bytes]:
        """Return the next lines that are whole; of what has ended, the rest too."""
        if self._size() < self._offset:
            self._offset = 0  # it was begun anew
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                block = file.read(_BLOCK)
        except FileNotFoundError:  # it is not there yet
            return []
        except OSError as error:
            self._read_on = False
            self.problems.append(f"{self._path.name} is read no further: {error.strerror}")
            return []
        whole = block if last or len(block) == _BLOCK else block[: block.rfind(b"\n") + 1]
        end = whole.rfind(b"\n") + 1
        if len(block) == _BLOCK and end:
            whole = whole[:end]
        self._offset += len(whole)
        return whole.splitlines()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def of_json(text: str) -> dict[str, float]:
    """Return the numbers of a line that is a JSON object."""
    if not text.startswith("{"):
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    plain = parsed if isinstance(parsed, dict) else {}
    return numbers({k: v for k, v in plain.items() if not isinstance(v, bool | str)})


def numbers(fields: Mapping[str, object]) -> dict[str, float]:
    """Return those of the fields that are numbers, or texts of such."""
    values: dict[str, float] = {}
    for name, value in fields.items():
        try:
            values[name] = float(str(value).replace(",", ""))
        except ValueError:
            continue
    return values
