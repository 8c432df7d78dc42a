"""Weights to codes and scales, and back; bit for bit the same on every torch device.

Every step is exact, or rounded once as IEEE 754 says: the largest weight of a block, a true
division (torch turns one by a plain number into a product with its reciprocal on some devices),
powers of two by their bits, one cast. On a CPU it goes piece by piece, so that what a step leaves
is still in a cache when the next one wants it.

Rounding is DeepSeek's (DeepSeek-V3, inference/kernel.py; DeepGEMM, ceil_to_ue8m0): the largest
weight of a block divided by the largest code, rounded up where scales are powers of two. A scale
is a normal number; the least that DeepSeek takes, 1e-4, is meant for activations: it would flush
small weights to zero. Smaller blocks hold whatever larger ones do: what was quantized in blocks of
128 x 128 with powers of two is the same in groups of 32.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from jobs.formats import rounding
from jobs.formats.schemes import LARGEST, Scheme

_NORMAL = 2.0**-126  # the least scale
# The whole numbers as wide as floats of so many bytes, and all their bits but the sign.
_BITS = {2: (torch.int16, 0x7FFF), 4: (torch.int32, 0x7FFFFFFF)}
_PIECE = 1 << 18  # elements: of fewer, calls take longer than what they calculate
_LINE = 128  # columns
_HALF_SHIFT, _HALF_MASK, _HALF_FACTOR = 7, -0x4080, 256.0
_NOT_NUMBERS = 0x7F, 0xFF  # the two codes that are none


def quantise(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor | None]:
    """Return codes and scales of a weight; no scales where the weight is not finite.

    Args:
        weight: Rows and columns, of a floating type of 16 or 32 bits. Its rows begin at the edge
            of a block.
        scheme: What to make.
    """
    most = _largest(weight, scheme)
    if not bool(most.isfinite().all()):
        return weight, None
    largest = torch.full((), LARGEST[scheme.codes], device=weight.device)
    scales = most.clamp_(min=LARGEST[scheme.codes] * _NORMAL) / largest
    if scheme.powers:
        scales = rounding.power_up(scales)
    codes = _codes(weight, scales, scheme)
    return codes, rounding.to_bytes(scales) if scheme.scales == torch.uint8 else scales


def dequantise(codes: Tensor, scales: Tensor, scheme: Scheme, dtype: torch.dtype) -> Tensor:
    """Return codes times scales, each product rounded once, to `dtype`.

    Args:
        codes: Rows and columns; the rows begin at the edge of a block.
        scales: Of the blocks that `codes` touches, float32.
        scheme: What they are.
        dtype: torch type of the result.
    """
    weights = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    exact = scheme.codes == torch.float8_e4m3fn and not _has_special(codes, scales)
    scales = scales * _HALF_FACTOR if exact else scales
    for place, by in _pieces(codes, scales, scheme):
        wide = _halves(codes[place]) if exact else codes[place].float()
        part = weights[place] if dtype == torch.float32 else wide
        torch.mul(wide, by, out=part)
        if part is wide:
            weights[place] = wide
    return weights


# --- parts ------------------------------------------------------------------------------------


def _largest(weight: Tensor, scheme: Scheme) -> Tensor:
    """Return the largest absolute weight of each block, float32; as NaN where one is."""
    rows, columns = scheme.block[0], scheme.block[1] or weight.shape[1]
    if rows == 1:
        rest = weight.shape[1] % columns if columns else 0
        whole = pad(weight, (0, columns - rest)) if rest else weight
        return _most(whole.reshape(len(weight), -1, columns), 2).float()
    strips = torch.cat([_most(part, 1) for part in _split(weight, rows)])
    blocks = pad(strips, (0, -strips.shape[1] % columns)).reshape(len(strips), -1, columns)
    return blocks.amax(2).float()


def _most(values: Tensor, dim: int) -> Tensor:
    """Return the largest absolute values over one of three dimensions.

    Without their sign the bits of floats grow as they do, up to those that are no number; and
    torch finds the largest of whole numbers several times faster.
    """
    bits, mask = _BITS[values.dtype.itemsize]
    largest = [
        torch.bitwise_and(part, mask, out=_room("bits", part.shape, bits, part.device)).amax(dim)
        for part in _parts(values.view(bits))
    ]
    return torch.cat(largest).view(values.dtype)


def _parts(values: Tensor) -> Iterator[Tensor]:
    """Yield as many slices of the first dimension as make a piece."""
    each = max(_PIECE // max(values[0].numel(), 1), 1) if values.is_cpu else len(values)
    for first in range(0, len(values), each):
        yield values[first : first + each]


def _split(weight: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield the whole strips of so many rows, and what is left below them."""
    whole = len(weight) // rows * rows
    if whole:
        yield weight[:whole].reshape(-1, rows, weight.shape[1])
    if whole < len(weight):
        yield weight[whole:][None]


def _codes(weight: Tensor, scales: Tensor, scheme: Scheme) -> Tensor:
    codes = torch.empty(weight.shape, dtype=scheme.codes, device=weight.device)
    by = scales.reciprocal() if scheme.powers else scales  # exact, of powers of two
    for place, part in _pieces(weight, by, scheme):
        given = weight[place]
        scaled = _room("wide", given.shape, torch.float32, given.device)
        torch.mul(given, part, out=scaled) if scheme.powers else torch.div(given, part, out=scaled)
        codes[place] = scaled.round_() if scheme.codes == torch.int8 else scaled
    return codes


def _pieces(
    weight: Tensor, scales: Tensor, scheme: Scheme
) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Yield places in a weight, each with its scales as they are multiplied to it."""
    (rows, columns), (tall, wide) = weight.shape, scheme.block
    each = _PIECE if weight.is_cpu else weight.numel()
    down = tall if tall > 1 else max(each // max(columns, 1), 1)
    along = max(each // down // _LINE, 1) * _LINE if tall > 1 else columns
    for first in range(0, rows, down):
        band = scales[first // tall : -(-min(first + down, rows) // tall)]
        if wide:
            band = band[..., None].expand(-1, -1, wide).flatten(1)
        for begin in range(0, columns, along):
            place = slice(first, first + down), slice(begin, begin + along)
            yield place, band[:, begin : min(begin + along, columns)] if wide else band


def _has_special(codes: Tensor, scales: Tensor) -> bool:
    """Return whether there is a code or a scale that `_halves` gets wrong."""
    if not codes.numel():
        return True
    bits = codes.view(torch.uint8)
    most = bits.view(torch.int8).amax(), bits.amax()
    special = any(int(m) == none for m, none in zip(most, _NOT_NUMBERS, strict=True))
    return special or bool((scales * _HALF_FACTOR).isinf().any())


def _halves(codes: Tensor) -> Tensor:
    """Return codes in e4m3 as float32, by way of float16, which has that type's bits in its own.

    What is right to shift leaves the value divided by 256, subnormal ones too. torch itself has no
    vector instructions for the way from e4m3.
    """
    bits = _room("bits", codes.shape, torch.int16, codes.device)
    bits.copy_(codes.view(torch.int8))
    bits.bitwise_left_shift_(_HALF_SHIFT).bitwise_and_(_HALF_MASK)
    wide = _room("wide", codes.shape, torch.float32, codes.device)
    return wide.copy_(bits.view(torch.float16))


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.tensors: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}


_rooms = _Rooms()


def _room(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return memory of this thread for what is used up at once.

    It is used again and again: to touch new memory costs several times what is calculated in it.
    """
    size = prod(shape)
    room = _rooms.tensors.get((name, dtype, device))
    if room is None or len(room) < size:
        room = torch.empty(max(size, _PIECE), dtype=dtype, device=device)
        if device.type == "cpu":
            _rooms.tensors[name, dtype, device] = room
    return room[:size].view(shape)
