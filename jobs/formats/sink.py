"""Safetensors files whose tensors are written a few rows at a time, in any order, by any thread.

Their headers are known beforehand from types and shapes: so nothing is gathered in memory, no
tensor and no shard. Each file is hashed while it is written.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from jobs.formats import headers
from jobs.formats.hashed_file import HashedFile
from jobs.formats.headers import Spec, TensorPlace
from jobs.formats.safety import INDEX, SINGLE

SHARD = 5_000_000_000  # bytes
WHOLE = (0, 1)


class Sink:
    """The weights of a folder that is being written; leave it as a context when all is there.

    Args:
        folder: Where the files go.
        specs: Type and shape of every tensor, in the order in which they fill the shards.
        shard: Bytes of a file, at most, but for a tensor that is larger itself.
        share: Which part of the files is written here, of how many; the first has the index.

    Raises:
        OSError: The files can't be written.
    """

    def __init__(
        self,
        folder: Path,
        specs: Mapping[str, Spec],
        *,
        shard: int = SHARD,
        share: tuple[int, int] = WHOLE,
    ) -> None:
        self._folder = folder
        self._places: dict[str, TensorPlace] = {}
        self._remaining = 0
        self._counting = threading.Lock()
        self._files: dict[Path, HashedFile] = {}
        self._names: dict[str, str] = {}  # of the file of each tensor, the others' too
        index, of = share
        parts = [*_parts(specs, shard)]
        for number, part in enumerate(parts):
            name = f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors"
            file = folder / (name if len(parts) > 1 else SINGLE)
            self._names |= dict.fromkeys(part, file.name)
            if number % of == index:
                self._begin(file, part)
        if len(parts) > 1 and index == 0:
            self._write_index(headers.total(specs.values()))

    def __enter__(self) -> Self:
        """Return the sink itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files.

        Raises:
            ValueError: Something was not written.
        """
        for file in self._files.values():
            file.close()
        if kind is None and self._remaining:
            folder = str(self._folder)
            raise ValueError(f"{self._remaining:,} bytes of {folder!r} were never written")

    def holds(self, name: str) -> bool:
        """Return whether a tensor is in the files that are written here."""
        return name in self._places

    def write(self, name: str, first: int, rows: Tensor) -> None:
        """Write rows of a tensor, from row `first` on; nothing of what others write."""
        if name in self._names and not self.holds(name):
            return
        place = self._places[name]
        assert rows.dtype == place.spec.dtype, f"{name} is {rows.dtype}"  # noqa: S101 - our own code
        data = rows.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data
        with self._counting:
            self._remaining -= len(data)
        self._files[place.file].write(place.begin + first * place.spec.row_size, data)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its name, once all is written."""
        return {path.name: file.sha256() for path, file in self._files.items()}

    def _begin(self, file: Path, specs: Mapping[str, Spec]) -> None:
        head, begins = headers.write(specs)
        hashed = HashedFile(file, len(head) + headers.total(specs.values()))
        self._files[file] = hashed
        self._remaining += headers.total(specs.values())
        hashed.write(0, memoryview(head))
        for name, begin in begins.items():
            self._places[name] = TensorPlace(file, begin, specs[name])

    def _write_index(self, size: int) -> None:
        said = dict(sorted(self._names.items()))
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": said}, indent=2)
        (self._folder / INDEX).write_text(f"{text}\n", "utf-8")


def _parts(specs: Mapping[str, Spec], shard: int) -> Iterator[dict[str, Spec]]:
    """Yield the tensors of each file, as many as it holds."""
    part: dict[str, Spec] = {}
    held = 0
    for name, spec in specs.items():
        if part and held + spec.size > shard:
            yield part
            part, held = {}, 0
        part[name] = spec
        held += spec.size
    yield part
