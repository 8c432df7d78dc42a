"""Which part of a checkpoint holds which piece of a tensor, as its workers tell each other.

A worker has on its node the parts that it has verified, the K-th of N workers the parts K, N + K,
and so on. It reads the headers of these alone and tells the others what they say, so that nobody
brings a part that holds nothing of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod

import torch
from safetensors import safe_open

from jobs.formats.headers import TYPES
from jobs.training.checkpoint import SHARD_FILES
from jobs.training.parallel.snapshots import FORMAT, OFFSETS
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Checkpoint, DataError


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A piece of a tensor in a file of a checkpoint.

    Attributes:
        shard: Number of the part that the file is of.
        file: Name of the file.
        type: Of its values, in words of safetensors.
        offsets: Where in the tensor it begins.
        sizes: Its shape.
    """

    shard: int
    file: str
    type: str
    offsets: Sequence[int]
    sizes: Sequence[int]

    @property
    def dtype(self) -> torch.dtype:
        """Type of its values."""
        return TYPES[self.type]

    @property
    def place(self) -> tuple[slice, ...]:
        """Where in the tensor it lies."""
        return tuple(slice(b, b + n) for b, n in zip(self.offsets, self.sizes, strict=True))


StoredChunks = Mapping[str, Sequence[StoredChunk]]  # by the name of their tensor


def stored_chunks(stored: Checkpoint, group: ProcessGroup) -> StoredChunks:
    """Return the pieces of all tensors of a checkpoint; every worker must call this.

    Raises:
        DataError: A part of a tensor is missing.
    """
    mine = [
        (name, asdict(chunk))
        for shard in range(group.rank, len(stored.shards), group.size)
        for name, chunk in _read_headers(stored, shard)
    ]
    chunks: dict[str, list[StoredChunk]] = {}
    for text in group.gather(json.dumps(mine)):
        for name, values in json.loads(text):
            chunks.setdefault(name, []).append(StoredChunk(**values))
    for name, pieces in chunks.items():
        if sum(prod(piece.sizes) for piece in pieces) != prod(shape_of(pieces)):
            folder = str(stored.path.parent)
            raise DataError(f"checkpoint {folder!r} lacks a part of {name!r}")
    return chunks


def shape_of(pieces: Sequence[StoredChunk]) -> torch.Size:
    """Return the shape of the tensor that pieces are of, as far as the last of them reaches."""
    ends = ([place.stop for place in piece.place] for piece in pieces)
    return torch.Size(max(end) for end in zip(*ends, strict=True))


def _read_headers(stored: Checkpoint, shard: int) -> list[tuple[str, StoredChunk]]:
    chunks: list[tuple[str, StoredChunk]] = []
    for file in sorted(stored.shards[shard].glob(SHARD_FILES)):
        with safe_open(file, framework="pt") as opened:
            begins = json.loads((opened.metadata() or {}).get(FORMAT, "{}"))
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                values = opened.get_slice(name)
                sizes = list(values.get_shape())
                offsets = begins[name][OFFSETS] if begins else [0] * len(sizes)
                chunk = StoredChunk(shard, file.name, values.get_dtype(), offsets, sizes)
                chunks.append((name, chunk))
    return chunks
