"""Splits that are disjoint by content.

Where an item goes follows from the hash of its content key and the seed, from nothing else: two
items of the same content always land in the same split, in whatever order or number they come.
"""

from __future__ import annotations

import hashlib

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

_SCALE = 1 << 64


def split_of(key: str, *, seed: int, validation: float, test: float) -> str:
    """Return the split of the item with this content key; shares are fractions of the keys."""
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ValueError(
            f"validation={validation!r} and test={test!r} leave nothing to train on; "
            f"give shares whose sum is below 1"
        )
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / _SCALE
    if point < test:
        return TEST
    return VALIDATION if point < test + validation else TRAIN
