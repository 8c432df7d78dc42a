"""A model folder that is read a few rows at a time, whatever its format.

What it holds is checked when it is opened, but for the weights themselves: that files are sound,
that every code has its scale, and that scales are what the config says. A flag is not believed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from jobs.formats import headers, modelslim, rounding, safety
from jobs.formats.blocks import dequantise
from jobs.formats.headers import Spec, TensorPlace
from jobs.formats.records import KEY, scheme_of
from jobs.formats.schemes import LARGEST, Scheme
from jobs.formats.tensor_parts import DividedTensor, divided

PIECE = 1 << 22  # bytes that are read at once, some
_CODES = (*LARGEST, torch.float8_e5m2)
_SCALES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.float8_e8m0fnu)
_PLANE = 2  # dimensions of a weight with scales


class Folder:
    """The tensors of a model folder by name. Safe to read from many threads.

    Of a gang whose workers open it each hashes its `share` of the files.

    Attributes:
        path: The folder.
        config: What its `config.json` says.
        scheme: The scheme of its weights, `None` where they are plain.
        specs: Type and shape of each tensor as it is stored; scales are not among them.

    Raises:
        ValueError: It is not sound, or in no format that is read here; names the tensor.
    """

    def __init__(self, path: Path, share: tuple[int, int] = (0, 1)) -> None:
        self.path = path
        self.config = safety.read_json(path / safety.CONFIG)
        self.scheme = scheme_of(self.config) or modelslim.scheme_in(path)
        files, index = safety.files_of(path)
        descriptions = [file for file in (path / modelslim.FILE,) if file.exists()]
        safety.check_hashes(
            path, [path / safety.CONFIG, *descriptions, *files[share[0] :: share[1]]]
        )
        places = _places_in(path, files, index)
        self._scales = _scales(places, self.scheme)
        held = {*self._scales.values(), *_offsets(places, self._scales, self.scheme)}
        self._places = {name: place for name, place in places.items() if name not in held}
        self._scale_places = {name: places[scale] for name, scale in self._scales.items()}
        self.specs: Mapping[str, Spec] = {n: place.spec for n, place in self._places.items()}
        for name in self._scales:
            self._check_scale(name)

    def is_quantized(self, name: str) -> bool:
        """Return whether a tensor is stored as codes and scales."""
        return name in self._scales

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Return rows `first` up to `last` of a tensor: as float32 where it is quantized.

        `first` is a multiple of the rows that share a scale.
        """
        stored = _read(self._places[name], first, last)
        if not self.is_quantized(name):
            return stored
        return self._decode(name, stored, first, torch.float32)

    def codes(self, name: str, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Return rows of a quantized tensor as they are stored, and their scales as float32.

        `first` is a multiple of the rows that share a scale.
        """
        step = self._block_rows()
        scales = self._scale(name, first // step, -(-last // step))
        return _read(self._places[name], first, last), scales

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return a whole tensor: of type `dtype` where it is quantized, else as it is stored."""
        spec = self.specs[name]
        if not self.is_quantized(name):
            return _read(self._places[name], 0, spec.rows)
        whole = torch.empty(spec.shape, dtype=dtype)
        for first, last in pieces(spec, self._block_rows()):
            codes = _read(self._places[name], first, last)
            whole[first:last] = self._decode(name, codes, first, dtype)
        return whole

    def _decode(self, name: str, codes: Tensor, first: int, dtype: torch.dtype) -> Tensor:
        assert self.scheme is not None  # noqa: S101 - only then something is quantized
        step = self._block_rows()
        grid = first // step, -(-(first + len(codes)) // step)
        scales = self._scale(name, *grid)
        return dequantise(codes, scales, self.scheme, dtype)

    def _scale(self, name: str, first: int, last: int) -> Tensor:
        """Return rows of the scales of a tensor, as float32."""
        stored = _read(self._scale_places[name], first, last)
        is_bytes = stored.dtype in (torch.uint8, torch.float8_e8m0fnu)
        scales = rounding.from_bytes(stored) if is_bytes else stored.float()
        return scales.reshape(last - first, -1)

    def _block_rows(self) -> int:
        return self.scheme.block[0] if self.scheme else 1

    def _check_scale(self, name: str) -> None:
        assert self.scheme is not None  # noqa: S101 - only then something is quantized
        place = self._scale_places[name]
        for first, last in pieces(place.spec, 1):
            scales = self._scale(name, first, last)
            if not bool((scales.isfinite() & (scales > 0)).all()):
                raise ValueError(f"tensor {self._scales[name]} has scales that are not positive")
            if self.scheme.powers and not rounding.are_powers(scales):
                raise ValueError(
                    f"tensor {self._scales[name]} has scales that are no powers of two, "
                    f"though {KEY} says {self.scheme.form}; don't trust where it comes from"
                )


def tensor_names(folder: Path) -> Collection[str]:
    """Return the names of all that a folder holds, by the headers of its files alone."""
    return _places_in(folder, *safety.files_of(folder)).keys()


def pieces(spec: Spec, step: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and that after the last of pieces of a tensor, by whole `step`s."""
    at_once = max(PIECE // max(spec.row_size, 1) // step, 1) * step
    for first in range(0, spec.rows, at_once):
        yield first, min(first + at_once, spec.rows)


def _read(place: TensorPlace | DividedTensor, first: int, last: int) -> Tensor:
    if isinstance(place, DividedTensor):
        return place.rows(first, last)
    return headers.read_rows(place, first, last)


def _places_in(
    folder: Path, files: list[Path], index: Mapping[str, str]
) -> Mapping[str, TensorPlace | DividedTensor]:
    """Return the places of the tensors of a folder, whose files may hold parts of them."""
    return divided(files) if safety.is_divided(folder) else _gather(files, index)


def _gather(files: list[Path], index: Mapping[str, str]) -> dict[str, TensorPlace]:
    """Return the places of the tensors of all files.

    Raises:
        ValueError: A tensor is in two of them, or not where the index says.
    """
    places: dict[str, TensorPlace] = {}
    for file in files:
        for name, place in headers.read(file).items():
            if name in places:
                raise ValueError(
                    f"tensor {name} is in {places[name].file.name!r} and {file.name!r}"
                )
            places[name] = place
    for name, said in index.items():
        if name not in places or places[name].file.name != said:
            raise ValueError(f"tensor {name} is not in {said!r}, as {safety.INDEX} says")
    return places


def _scales(
    places: Mapping[str, TensorPlace | DividedTensor], scheme: Scheme | None
) -> dict[str, str]:
    """Return the name of the scale of each tensor that is stored as codes.

    Raises:
        ValueError: A code lacks its scale, or the scale does not fit it.
    """
    scales: dict[str, str] = {}
    for name, place in places.items():
        if place.spec.dtype not in _CODES:
            continue
        scale = f"{name}{scheme.suffix}" if scheme else ""
        if scheme is None or place.spec.dtype != scheme.codes or scale not in places:
            kind = str(place.spec.dtype).removeprefix("torch.")
            raise ValueError(
                f"tensor {name} is stored as {kind}, and has no scale {scale}".rstrip()
            )
        _check_fit(name, place.spec, places[scale].spec, scheme)
        scales[name] = scale
    return scales


def _offsets(
    places: Mapping[str, TensorPlace | DividedTensor],
    quantized: Iterable[str],
    scheme: Scheme | None,
) -> Iterator[str]:
    """Yield the names of the offsets of what is quantized.

    Raises:
        ValueError: One is not zero.
    """
    if scheme is None or not scheme.offset:
        return
    for name in (f"{weight}{scheme.offset}" for weight in quantized):
        place = places.get(name)
        if place is None:
            continue
        if any(bool(_read(place, *piece).any()) for piece in pieces(place.spec, 1)):
            raise ValueError(f"tensor {name} is not zero; only symmetric codes are read here")
        yield name


def _check_fit(name: str, spec: Spec, scale: Spec, scheme: Scheme) -> None:
    if len(spec.shape) != _PLANE:
        raise ValueError(f"tensor {name} has scales and shape {spec.shape}; only a plane may")
    grid = scheme.grid(spec.shape)
    if scale.dtype not in _SCALES or scale.shape not in (grid, grid[:1] if grid[1] == 1 else grid):
        kind = str(scale.dtype).removeprefix("torch.")
        raise ValueError(
            f"tensor {name} of shape {spec.shape} has scales of shape {scale.shape} in {kind}, "
            f"not {grid}"
        )
