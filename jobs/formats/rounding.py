"""Powers of two by their bits: exact, and the same on every device.

A float32 is a power of two when its 23 bits of fraction are zero. `log2` would be wrong next to
one, and `.to(torch.float8_e8m0fnu)` rounds to the nearest, not up.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FRACTION = 0x7FFFFF
_EXPONENT = 0x7F800000
_PLACES = 23


def power_up(values: Tensor) -> Tensor:
    """Return the least powers of two that are not below `values`, normal positive float32."""
    bits = values.view(torch.int32)
    return ((bits + _FRACTION) & _EXPONENT).view(torch.float32)


def are_powers(scales: Tensor) -> bool:
    """Return whether all of `scales`, float32, are normal powers of two."""
    bits = scales.view(torch.int32)
    return bool((((bits & _FRACTION) == 0) & (bits > 0) & (bits < _EXPONENT)).all())


def to_bytes(powers: Tensor) -> Tensor:
    """Return powers of two, float32, as bytes in E8M0."""
    return (powers.view(torch.int32) >> _PLACES).to(torch.uint8)


def from_bytes(stored: Tensor) -> Tensor:
    """Return what bytes in E8M0 mean, as float32; 255 is no number."""
    return stored.view(torch.float8_e8m0fnu).to(torch.float32)
