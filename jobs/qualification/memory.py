"""Whether a chip has the memory that it says, and keeps in it what is written.

All that is free is filled before any of it is read, so that two addresses that mean one place are
found. Each block holds random words, turned by a word of its own; then their complement: every bit
has been 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from jobs.qualification.bench import FAILED, LIMITED, PASSED, Bench, ask
from jobs.training.order import mix

_GB = 1e9
_WORD = 4  # bytes
_PART = 1 << 22  # words that are compared at once
_LARGEST, _LEAST = 1 << 28, 1 << 24  # bytes of a block
_OF_FREE = 0.97  # the rest is room to compare in
_FILLED = 0.95  # of what is free, at least
_OF_HOST = 1 << 24  # bytes: what stands in for a chip shares the memory of the host
_LEAST_OF_PUBLISHED = 0.85


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a device: all, those that are free; `None` where the device does not tell."""

    total: int | None
    free: int | None


class Kept(Protocol):
    """Writes and reads blocks; returns what of them was not kept."""

    def __call__(self, blocks: list[Tensor], *, seed: int, passes: int) -> str:
        """Return it in words; empty where all was."""
        ...


def check_memory(
    bench: Bench,
    device: torch.device,
    room: Room | None = None,
    kept: Kept | None = None,
) -> None:
    """Fill the memory that is free, and read all of it back, twice or more.

    `room` is what there is where the device is not to be asked; `kept` writes and reads blocks,
    and says what of them was not kept.
    """
    ask(device, "empty_cache")  # what checks before this one have let go
    subject, room = str(device), room or _room(bench, device)
    published = bench.ctx.hardware.memory_gb
    wanted = room.free if room.free is not None else int((published or 0) * _GB)
    blocks = list(_blocks(int(wanted * _OF_FREE) if bench.real else _OF_HOST, device))
    held = sum(block.nbytes for block in blocks)
    passes = 2 if bench.quick else 6
    seed, status = mix(bench.ctx.seed, bench.ctx.rank), PASSED
    note = (kept or _kept)(blocks, seed=seed, passes=passes)
    blocks.clear()
    ask(device, "empty_cache")
    if note:
        status = FAILED
    elif not bench.real:
        note = "a small part, of the host's"
    elif held < wanted * _FILLED:
        status = LIMITED if room.free is None else FAILED
        note = f"{held / _GB:.1f} GB could be had of {wanted / _GB:.1f} GB"
    elif not wanted:
        status, note = LIMITED, "neither the device nor its maker tells how much there is"
    bench.say("memory", subject, status, figure=held / _GB, unit="GB", note=note)
    if bench.real and published and (room.total or 0) / _GB < published * _LEAST_OF_PUBLISHED:
        said = "nothing" if room.total is None else f"{room.total / _GB:.1f} GB"
        short = f"the device says {said}, {published:g} GB are published"
        bench.say("memory", f"size {device}", LIMITED, note=short)


def _room(bench: Bench, device: torch.device) -> Room:
    if not bench.real:
        return Room(None, None)
    info = ask(device, "mem_get_info", device)
    return Room(None, None) if info is None else Room(total=int(info[1]), free=int(info[0]))


def _blocks(wanted: int, device: torch.device) -> Iterator[Tensor]:
    """Yield blocks of int32 words, `wanted` bytes together; smaller ones where none fits."""
    size = _LARGEST
    while wanted >= _LEAST and size >= _LEAST:
        size = min(size, wanted)
        try:
            block = torch.empty(size // _WORD, dtype=torch.int32, device=device)
        except RuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            size //= 2
            continue
        wanted -= size
        yield block


def _kept(blocks: list[Tensor], *, seed: int, passes: int) -> str:
    """Write and read everything; return what of it was not kept."""
    generator = torch.Generator().manual_seed(seed)
    low, high = -(1 << 31), (1 << 31) - 1
    words = torch.randint(low, high, (_PART,), dtype=torch.int32, generator=generator)
    pattern = words.to(blocks[0].device) if blocks else words
    for number in range(passes):
        turn = -1 if number % 2 else 0  # the complement
        for place, part in _parts(blocks):
            torch.bitwise_xor(pattern[: len(part)], _turned(place, number // 2, turn), out=part)
        for place, part in _parts(blocks):
            expected = pattern[: len(part)] ^ _turned(place, number // 2, turn)
            if not torch.equal(part, expected):
                return _wrong(part ^ expected, place)
    return ""


def _parts(blocks: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Yield all parts of all blocks, each with its number."""
    number = 0
    for block in blocks:
        for part in torch.split(block, _PART):
            yield number, part
            number += 1


def _turned(place: int, again: int, turn: int) -> int:
    """Return the word, of 32 bits with a sign, that the words of a part are turned by."""
    word = mix(place, again) & 0xFFFFFFFF
    return (word - (1 << 32) if word >> 31 else word) ^ turn


def _wrong(flipped: Tensor, place: int) -> str:
    """Return which bits of a part [words] were not kept."""
    words: Any = flipped[flipped != 0].cpu()
    bits = [bit for bit in range(32) if bool(((words >> bit) & 1).any())]
    which = ", ".join(map(str, bits[:8]))
    return f"{len(words)} words of part {place} read otherwise than written, in bits {which}"
