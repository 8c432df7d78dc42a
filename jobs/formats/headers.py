"""The safetensors format: a length, a header in JSON, and the bytes of all tensors.

What is wrong with a file that somebody else made, the library `safetensors` finds: a header that
is too long, places that overlap, leave gaps or lie beyond the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open

TYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E8M0": torch.float8_e8m0fnu,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
_NAMES = {dtype: name for name, dtype in TYPES.items()}
_LENGTH_BYTES = 8
_WIDEST = 8  # bytes of the widest type
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class Spec:
    """Type and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many equal pieces its first dimension cuts it into; 1 without dimensions."""
        return self.shape[0] if self.shape else 1

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def row_size(self) -> int:
        """Bytes of a row."""
        return prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where the bytes of a tensor are: from `begin` on, in bytes, in `file`."""

    file: Path
    begin: int
    spec: Spec


def read(file: Path) -> dict[str, TensorPlace]:
    """Return where the tensors of a file are, without reading them.

    Raises:
        ValueError: The file is not sound, or holds a type that is not known here.
    """
    if not file.is_file():
        raise ValueError(f"{str(file)!r} is missing, or no file")
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{str(file)!r} is no sound safetensors file: {reason}") from error
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
    header.pop(_METADATA, None)
    begin = _LENGTH_BYTES + length
    return {name: _place(file, begin, name, said) for name, said in header.items()}


def read_rows(place: TensorPlace, first: int, last: int) -> torch.Tensor:
    """Return rows `first` up to `last` of a tensor, as they are stored.

    Raises:
        ValueError: The file ends before them.
    """
    spec = place.spec
    shape = (last - first, *spec.shape[1:]) if spec.shape else ()
    rows = torch.empty(shape, dtype=spec.dtype)
    room = rows.reshape(-1).view(torch.uint8).numpy().data
    with place.file.open("rb", buffering=0) as stream:
        stream.seek(place.begin + first * spec.row_size)
        while room:
            count = stream.readinto(room)
            if not count:
                raise ValueError(f"{str(place.file)!r} ends too early")
            room = room[count:]
    return rows


def write(specs: Mapping[str, Spec]) -> tuple[bytes, dict[str, int]]:
    """Return the bytes before those of the tensors, and where each tensor begins in the file.

    They stand in the order in which they are given, so that a file can be written and hashed from
    its beginning; but those of an odd size come last, wide types first. So every tensor lies at a
    multiple of its type's size.
    """
    said: dict[str, object] = {_METADATA: {"format": "pt"}}
    begins, at = {}, 0
    for name in sorted(specs, key=lambda name: _rank(specs[name])):
        spec = specs[name]
        begins[name], end = at, at + spec.size
        said[name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    head = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    return head, {name: len(head) + begin for name, begin in begins.items()}


def total(specs: Iterable[Spec]) -> int:
    """Return the bytes of all."""
    return sum(spec.size for spec in specs)


def _rank(spec: Spec) -> int:
    return -spec.dtype.itemsize if spec.size % _WIDEST else -_WIDEST


def _place(file: Path, begin: int, name: str, entry: Mapping[str, object]) -> TensorPlace:
    dtype = TYPES.get(str(entry["dtype"]))
    if dtype is None:
        raise ValueError(f"tensor {name} of {str(file)!r} has the type {entry['dtype']!r}")
    offsets, shape = entry["data_offsets"], entry["shape"]
    assert isinstance(offsets, list)  # noqa: S101 - checked by the library
    assert isinstance(shape, list)  # noqa: S101 - as above
    return TensorPlace(file, begin + offsets[0], Spec(dtype, tuple(shape)))
