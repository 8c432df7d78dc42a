"""A model folder's weights into another folder, in another format.

A few rows at a time are read, quantised and written by each of some threads: memory follows the
size of those pieces, not that of a tensor or a shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import lcm
from pathlib import Path

import torch
from torch import Tensor

from jobs.formats import headers, rounding
from jobs.formats.blocks import quantise
from jobs.formats.choice import QuantizationChoice
from jobs.formats.folder import Folder, pieces
from jobs.formats.headers import Spec
from jobs.formats.schemes import PLAIN, Scheme, scheme_for
from jobs.formats.sink import SHARD, WHOLE, Sink


@dataclass(frozen=True, slots=True)
class ConvertedFiles:
    """What a conversion writes: the bytes of all weights, and the SHA-256 of each own file."""

    size: int
    hashes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A conversion of the weights of `source` into `form`.

    What is stored in the scheme that is made keeps its codes and scales.

    Attributes:
        source: What is converted, in whatever format.
        form: The format that is made.
        calibrated: The same model with what a calibration made of its tensors; they count, and
            the others are the source's.
        dialect: For whose readers.
        choice: Which weights are quantised.
        device: torch device of the calculation; the result is the same on each.
        threads: Pieces that are worked on at once.
        shard: Bytes of a file, at most.
        share: Which part of the files is written here, of how many.
    """

    source: Folder
    form: str
    choice: QuantizationChoice
    calibrated: Folder | None = None
    dialect: str = "vllm"
    device: str = "cpu"
    threads: int = 1
    shard: int = SHARD
    share: tuple[int, int] = WHOLE

    @property
    def scheme(self) -> Scheme | None:
        """The scheme that is made, `None` of plain weights."""
        return scheme_for(self.form, self.dialect)

    def run(self, target: Path) -> ConvertedFiles:
        """Write the weights.

        Raises:
            ValueError: A weight is no finite number; names the tensor.
        """
        specs = dict(self._specs())
        size = headers.total(specs.values())
        shard = min(self.shard, max(size // self.share[1], 1))  # a file for everybody
        with (
            Sink(target, specs, shard=shard, share=self.share) as sink,
            ThreadPoolExecutor(self.threads, initializer=_one_thread) as pool,
        ):
            work = [
                (name, *piece)
                for name, spec in self.source.specs.items()
                if any(sink.holds(tensor) for tensor in self._written(name))
                for piece in pieces(spec, self._step())
            ]
            for done in [pool.submit(self._convert, sink, *piece) for piece in work]:
                done.result()
        return ConvertedFiles(size, sink.hashes())

    def _written(self, name: str) -> tuple[str, ...]:
        """Return the names of what is written of a tensor; each may be in another file."""
        scheme = self.scheme
        suffixes = ("", scheme.suffix, scheme.offset) if scheme else ("",)
        return tuple(f"{name}{suffix}" for suffix in suffixes)

    def _specs(self) -> Iterator[tuple[str, Spec]]:
        """Yield type and shape of all that is written."""
        scheme = self.scheme
        for name, spec in self.source.specs.items():
            if scheme is not None and name in self.choice.quantized:
                yield name, Spec(scheme.codes, spec.shape)
                yield f"{name}{scheme.suffix}", Spec(scheme.scales, scheme.grid(spec.shape))
                if scheme.offset:
                    yield f"{name}{scheme.offset}", Spec(scheme.scales, scheme.grid(spec.shape))
            else:
                yield name, Spec(self._plain(name, spec), spec.shape)

    def _plain(self, name: str, spec: Spec) -> torch.dtype:
        if not (spec.dtype.is_floating_point or self.source.is_quantized(name)):
            return spec.dtype
        return (
            torch.float32
            if name in self.choice.in_float32
            else PLAIN.get(self.form, torch.bfloat16)
        )

    def _step(self) -> int:
        """Return the rows that stay together, for what is read and for what is made."""
        schemes = [folder.scheme for folder in (self.source, self.calibrated) if folder]
        read = [scheme.block[0] for scheme in schemes if scheme]
        return lcm(self.scheme.together if self.scheme else 1, *read)

    def _from(self, name: str) -> Folder:
        """Return where a tensor is taken from."""
        calibrated = self.calibrated
        return calibrated if calibrated and name in calibrated.specs else self.source

    def _convert(self, sink: Sink, name: str, first: int, last: int) -> None:
        scheme = self.scheme
        if scheme is None or name not in self.choice.quantized:
            rows = self._from(name).rows(name, first, last)
            sink.write(name, first, rows.to(self._plain(name, self.source.specs[name])))
            return
        codes, scales = self._quantized(name, first, last, scheme)
        sink.write(name, first, codes)
        sink.write(f"{name}{scheme.suffix}", first // scheme.block[0], scales)
        if scheme.offset:
            sink.write(f"{name}{scheme.offset}", first // scheme.block[0], scales.zero_())

    def _quantized(
        self, name: str, first: int, last: int, scheme: Scheme
    ) -> tuple[Tensor, Tensor]:
        """Return codes and scales of rows, as they are stored in `scheme`."""
        folder = self._from(name)
        if folder.is_quantized(name) and folder.scheme and folder.scheme.makes(scheme):
            codes, scales = folder.codes(name, first, last)
            return codes, rounding.to_bytes(scales) if scheme.scales == torch.uint8 else scales
        rows = folder.rows(name, first, last)
        narrow = rows if rows.dtype.itemsize <= torch.float32.itemsize else rows.float()
        codes, by = quantise(narrow.to(self.device), scheme)
        if by is None:
            raise ValueError(
                f"tensor {name} of {str(folder.path)!r} has values that are not finite"
            )
        return codes, by


def _one_thread() -> None:
    """Leave the cores to the threads of the pool."""
    torch.set_num_threads(1)
