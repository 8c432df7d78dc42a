"""Metrics in TensorBoard's event files: scalars, read while a command writes them.

An event file is a row of records: a length of eight bytes, its checksum, that many bytes, theirs.
A record is an `Event` of TensorBoard's protocol, of which the step and the scalars are read here.
What has other records, histograms or pictures, is passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from os import SEEK_CUR
from pathlib import Path
from time import monotonic

_HEAD, _CHECK = 12, 4  # bytes before and after what a record holds
_LARGEST = 65_536  # bytes of a record that may hold scalars
_LOOK_SECONDS = 2.0
_PATTERN = "*tfevents*"
_GOES_ON = 0x80  # the bit of a byte after which a number has another
_FLOATS: Mapping[int, str] = {1: "<f", 2: "<d"}  # of tensors: their types, by number
# Fields of the messages, by their numbers in TensorBoard's protocol.
_EVENT_STEP, _EVENT_SUMMARY = 2, 5
_SUMMARY_VALUE = 1
_VALUE_TAG, _VALUE_SIMPLE, _VALUE_TENSOR = 1, 2, 8
_TENSOR_TYPE, _TENSOR_BYTES, _TENSOR_FLOATS, _TENSOR_DOUBLES = 1, 4, 5, 6


class DamagedRecordError(Exception):
    """What stands there is no record: the file is damaged, or none of TensorBoard's."""


class EventFiles:
    """The event files below a folder, those that are written from now on."""

    def __init__(self, folder: Path, largest: int = _LARGEST) -> None:
        """Leave out what is there already, which is of earlier trainings.

        Records of more than `largest` bytes are skipped.
        """
        self._folder, self._largest = folder, largest
        self._old = frozenset(self._files())
        self._offsets: dict[Path, int] = {}
        self._damaged: set[Path] = set()
        self._next_look = 0.0
        self.problems: list[str] = []

    @property
    def lacking(self) -> str:
        """What has not been seen, in words; empty where there was any file."""
        what = f"no event file of TensorBoard was seen in {self._folder.name!r}"
        return "" if self._offsets else what

    def read(self, *, last: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield steps with the scalars that are new since the last look, some seconds ago."""
        now = monotonic()
        if now < self._next_look and not last:
            return
        self._next_look = now + _LOOK_SECONDS
        for path in self._files():
            if path not in self._old and path not in self._damaged:
                yield from _by_step(self._scalars(path))

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.rglob(_PATTERN))
        except OSError:  # a folder goes meanwhile
            return []

    def _scalars(self, path: Path) -> Iterator[tuple[int, str, float]]:
        offset = self._offsets.setdefault(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                while head := file.read(_HEAD):
                    length = _length(head)
                    if length is None:
                        return
                    skipped = length > self._largest
                    record = b"" if skipped else file.read(length)
                    file.seek(length if skipped else 0, SEEK_CUR)
                    check = file.read(_CHECK)
                    if len(check) < _CHECK:
                        return  # the rest is still to be written
                    if not skipped:
                        _verify(record, check)
                    self._offsets[path] = file.tell()
                    yield from _of_event(record)
        except FileNotFoundError:
            return
        except (DamagedRecordError, OSError, struct.error, IndexError) as error:
            self._damaged.add(path)
            why = error or "a damaged record"
            self.problems.append(f"TensorBoard's {path.name} is read no further: {why}")


def _by_step(
    scalars: Iterator[tuple[int, str, float]],
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield together what stands together: the scalars of one step."""
    at, values = -1, dict[str, float]()
    for step, tag, value in scalars:
        if step != at and values:
            yield at, values
            values = {}
        at = step
        values[tag] = value
    if values:
        yield at, values


def _length(head: bytes) -> int | None:
    """Return how long a record is, `None` where its head is not written to the end.

    Raises:
        DamagedRecordError: Its checksum is another.
    """
    if len(head) < _HEAD:
        return None
    length, check = head[:8], head[8:]
    _verify(length, check)
    return int.from_bytes(length, "little")


def _verify(data: bytes, check: bytes) -> None:
    if _masked_checksum(data).to_bytes(4, "little") != check:
        raise DamagedRecordError("the checksum of a record differs")


def _masked_checksum(data: bytes) -> int:
    """Return the CRC-32C of `data`, turned as records have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _of_byte(byte: int) -> int:
    """Return what a byte comes to in a CRC-32C."""
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_of_byte, range(256)))


# --- its protocol -------------------------------------------------------------------------------


def _of_event(record: bytes) -> Iterator[tuple[int, str, float]]:
    """Yield step, tag and value of the scalars of an event."""
    step, summaries = 0, list[bytes]()
    for number, value in _fields(record):
        if number == _EVENT_STEP and isinstance(value, int):
            step = _signed(value)
        elif number == _EVENT_SUMMARY and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, value in _fields(summary):
            if number == _SUMMARY_VALUE and isinstance(value, bytes):
                yield from ((step, tag, number) for tag, number in _scalar(value))


def _signed(number: int) -> int:
    """Return the number of 64 bits that is written as `number`, which has no sign."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number


def _scalar(message: bytes) -> Iterator[tuple[str, float]]:
    tag, scalar = "", None
    for number, value in _fields(message):
        if number == _VALUE_TAG and isinstance(value, bytes):
            tag = value.decode(errors="replace")
        elif number == _VALUE_SIMPLE and isinstance(value, float):
            scalar = value
        elif number == _VALUE_TENSOR and isinstance(value, bytes):
            scalar = _of_tensor(value)
    if tag and scalar is not None:
        yield tag, scalar


def _of_tensor(message: bytes) -> float | None:
    """Return the number in a tensor of one, `None` where it has several or is of another type."""
    kind, data = 0, b""
    for number, value in _fields(message):
        if number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number in {_TENSOR_FLOATS, _TENSOR_DOUBLES} and isinstance(value, float):
            return value
        elif number in {_TENSOR_BYTES, _TENSOR_FLOATS, _TENSOR_DOUBLES} and isinstance(
            value, bytes
        ):
            data = value
    form = _FLOATS.get(kind)
    if form is None or len(data) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, data)[0])


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yield number and value of the fields of a message of Protocol Buffers."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value: int | float | bytes
        match key & 7:
            case 0:
                value, at = _varint(message, at)
            case 1:
                (value,), at = struct.unpack_from("<d", message, at), at + 8
            case 2:
                length, at = _varint(message, at)
                value, at = message[at : at + length], at + length
            case 5:
                (value,), at = struct.unpack_from("<f", message, at), at + 4
            case kind:
                raise DamagedRecordError(f"a field is written in way {kind}, which there is not")
        yield key >> 3, value


def _varint(message: bytes, begin: int) -> tuple[int, int]:
    """Return the number that begins at `begin`, seven bits a byte, and where it ends."""
    number = shift = 0
    while True:
        byte = message[begin]
        number |= (byte & ~_GOES_ON) << shift
        begin, shift = begin + 1, shift + 7
        if not byte & _GOES_ON:
            return number, begin
