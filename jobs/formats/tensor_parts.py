"""Tensors whose parts stand in several files, as `torch.distributed.checkpoint` writes them.

Its safetensors files (`HuggingFaceStorageWriter`, with `save_distributed`) say of each tensor in
them where in the whole one it begins. Rows are put together of those parts alone that they lie in,
so that a model is read without ever being whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from jobs.formats import headers
from jobs.formats.headers import Spec, TensorPlace

FORMAT, OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"  # torch's own words


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A piece of a tensor, which begins at `offsets` of the whole one."""

    place: TensorPlace
    offsets: tuple[int, ...]

    @property
    def ends(self) -> tuple[int, ...]:
        """Where it ends, in each dimension."""
        return tuple(a + b for a, b in zip(self.offsets, self.place.spec.shape, strict=True))

    def overlaps(self, other: StoredPart) -> bool:
        """Whether both hold one value."""
        dims = zip(self.offsets, self.ends, other.offsets, other.ends, strict=True)
        return all(a < d and c < b for a, b, c, d in dims)


@dataclass(frozen=True, slots=True)
class DividedTensor:
    """A tensor in parts, which are sorted by where they begin."""

    spec: Spec
    parts: Sequence[StoredPart]

    def read(self) -> torch.Tensor:
        """Return all of it."""
        return self.rows(0, self.spec.rows)

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return rows `first` up to `last`, of the parts that they lie in."""
        if not self.spec.shape:
            return headers.read_rows(self.parts[0].place, 0, 1)
        rows = torch.empty((last - first, *self.spec.shape[1:]), dtype=self.spec.dtype)
        for part in self.parts:
            begin, end = part.offsets[0], part.ends[0]
            low, high = max(first, begin), min(last, end)
            if low < high:
                spans = list(zip(part.offsets, part.ends, strict=True))
                spans[0] = (low - first, high - first)
                read = headers.read_rows(part.place, low - begin, high - begin)
                rows[tuple(slice(*span) for span in spans)] = read
        return rows


def offsets_in(file: Path) -> Mapping[str, tuple[int, ...]] | None:
    """Return where the tensors of a file begin in the whole ones; `None` if they are whole.

    Raises:
        ValueError: The file is not sound, or says it in another way.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            said = (opened.metadata() or {}).get(FORMAT)
        if said is None:
            return None
        return dict(_begins(json.loads(said)))
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{str(file)!r} is no sound safetensors file: {reason}") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{str(file)!r} has a {FORMAT} that can't be read: {error}") from error


def _begins(content: object) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield where each tensor of a file begins, of what the file says.

    Raises:
        ValueError: It says something else than whole numbers.
    """
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - the file's fault
    for name, entry in content.items():
        offsets = entry.get(OFFSETS) if isinstance(entry, dict) else None
        if not isinstance(offsets, list) or any(type(offset) is not int for offset in offsets):
            raise ValueError(
                f"{OFFSETS} of tensor {name} is {offsets!r}, no list of whole numbers"
            )
        yield name, tuple(offsets)


def divided(files: Sequence[Path]) -> Mapping[str, DividedTensor]:
    """Return the tensors whose parts stand in some files.

    Raises:
        ValueError: A part is missing, there twice, or of another type; names the tensor.
    """
    parts: dict[str, list[StoredPart]] = {}
    for file in files:
        begins = offsets_in(file) or {}
        for name, place in headers.read(file).items():
            offsets = begins.get(name, ())
            if len(offsets) != len(place.spec.shape) or any(offset < 0 for offset in offsets):
                raise ValueError(f"{str(file)!r} does not say where in tensor {name} it belongs")
            parts.setdefault(name, []).append(StoredPart(place, offsets))
    return {name: _joined(name, pieces) for name, pieces in sorted(parts.items())}


def _joined(name: str, parts: list[StoredPart]) -> DividedTensor:
    parts = sorted(parts, key=lambda part: part.offsets)
    types = {part.place.spec.dtype for part in parts}
    if len({len(part.offsets) for part in parts}) > 1 or len(types) > 1:
        raise ValueError(f"the parts of tensor {name} are of different types or dimensions")
    full = [part for part in parts if prod(part.place.spec.shape)]
    for number, part in enumerate(full):
        for other in full[number + 1 :]:
            if part.offsets and other.offsets[0] >= part.ends[0]:
                break  # nor does any behind it
            if part.overlaps(other):
                files = f"{part.place.file.name!r} and {other.place.file.name!r}"
                raise ValueError(f"a part of tensor {name} is in {files}")
    shape = tuple(max(ends) for ends in zip(*(part.ends for part in parts), strict=True))
    if sum(prod(part.place.spec.shape) for part in parts) != prod(shape):
        folder = str(parts[0].place.file.parent)
        raise ValueError(f"{folder!r} lacks a part of tensor {name}, of shape {shape}")
    return DividedTensor(Spec(types.pop(), shape), parts)
