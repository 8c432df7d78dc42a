"""The chips that are there, the memory that they really have, and how fast it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from jobs.qualification.bench import FAILED, LIMITED, SKIPPED, Bench

_GB = 1e9
_BLOCK = 1 << 26  # int32 numbers, a quarter of a GiB
_OF_FREE = 0.9
# What stands in for a chip shares the memory of the host: a small part of that is measured.
_STAND_IN = 1 << 22
_LEAST_OF_PUBLISHED = 0.85


def bytes_of(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's numbers, whatever holds them."""
    return tensor.numel() * tensor.element_size()


def devices_of(bench: Bench) -> list[torch.device]:
    """Return all devices that this worker sees."""
    kind = bench.device.type
    if kind == "cpu":
        return [bench.device]
    count = int(torch.get_device_module(kind).device_count())
    return [torch.device(kind, index) for index in range(count)]


def check_devices(bench: Bench, expected: int) -> None:
    """Find as many chips as the pool says that a node has, and each of them at work."""
    kind, what = bench.device.type, "chips of a node"
    if kind == "cpu":
        bench.say("devices", what, SKIPPED, note="there is no chip to count, but a plain CPU")
        return
    module: Any = torch.get_device_module(kind)
    seen = devices_of(bench)
    names = sorted({str(module.get_device_name(device.index)) for device in seen})
    status = FAILED if len(seen) < expected else LIMITED if len(seen) > expected else "passed"
    note = f"{len(seen)} of {expected}: {', '.join(names)}"
    bench.say("devices", what, status, figure=float(len(seen)), note=note)
    for device in seen:
        total = float(torch.ones(1000, device=device).sum())
        if total != 1000:  # noqa: PLR2004 - as many ones
            bench.say("devices", str(device), FAILED, note=f"1000 ones make {total!r}")


def check_memory(bench: Bench, device: torch.device) -> None:
    """Fill the memory that is said to be free, and read all of it back."""
    subject = str(device)
    said, free = _said(bench, device)
    wanted = int(free * _OF_FREE) // 4 if bench.real else _STAND_IN
    blocks: list[torch.Tensor] = []
    note = "" if bench.real else "a small part, of the host's"
    try:
        for begin, end in _parts(wanted, min(_BLOCK, wanted)):
            blocks.append(torch.arange(begin, end, dtype=torch.int32, device=device))
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        held = sum(bytes_of(block) for block in blocks)
        blocks = blocks[:-1]  # room to compare in
        note = f"{held / _GB:.1f} GB could be had of {wanted * 4 / _GB:.1f} GB said to be free"
        bench.say("memory", subject, FAILED, note=note)
    wrong = sum(_differs(block, begin) for block, begin in _with_begins(blocks))
    held = sum(bytes_of(block) for block in blocks)
    if wrong:
        note = f"{wrong} of {len(blocks)} blocks read otherwise than they were written"
    bench.say(
        "memory", subject, FAILED if wrong else "passed", figure=held / _GB, unit="GB", note=note
    )
    published = bench.ctx.hardware.memory_gb
    if bench.real and published and said / _GB < published * _LEAST_OF_PUBLISHED:
        short = f"the device says {said / _GB:.1f} GB, {published:g} GB are published"
        bench.say("memory", f"size {device}", LIMITED, note=short)


def _said(bench: Bench, device: torch.device) -> tuple[int, int]:
    """Return the bytes that the device says it has, and those that are free."""
    if not bench.real:
        return 0, 0
    free, total = torch.get_device_module(device.type).mem_get_info(device)
    return int(total), int(free)


def _parts(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where blocks of `size` begin and end; numbers are cut to what 31 bits hold."""
    for number in range(max(total // max(size, 1), 1)):
        begin = (number * size) % (1 << 30)
        yield begin, begin + size


def _with_begins(blocks: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, int]]:
    size = len(blocks[0]) if blocks else 1
    for number, block in enumerate(blocks):
        yield block, (number * size) % (1 << 30)


def _differs(block: torch.Tensor, begin: int) -> int:
    """Return 1 where a block is not what was written; part by part, to take little memory."""
    for offset in range(0, len(block), _STAND_IN):
        part = block[offset : offset + _STAND_IN]
        start = begin + offset
        wanted = torch.arange(start, start + len(part), dtype=torch.int32, device=block.device)
        if not torch.equal(part, wanted):
            return 1
    return 0


def check_bandwidth(bench: Bench, device: torch.device) -> None:
    """Measure copies within the chip's memory, to it, and back to the host."""
    size = (1 << 28) if bench.real else (1 << 20)
    repeats = 3 if bench.quick else 10
    spread = 1.5 if bench.real else None
    source = torch.arange(size // 4, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    taken = bench.seconds(lambda: target.copy_(source), repeats=repeats, device=device)
    rate = 2 * bytes_of(source) / taken / _GB
    bench.say("bandwidth", f"memory {device}", figure=rate, unit="GB/s", spread=spread)
    if device.type == "cpu":
        note = "the host's memory is the device's"
        bench.say("bandwidth", "host and device", SKIPPED, note=note)
        return
    host = torch.arange(size // 4, dtype=torch.int32)
    if bench.real:
        host = host.pin_memory()
    ways = (("to", target, host), ("from", host, target))
    for way, into, outof in ways:
        taken = bench.seconds(
            lambda into=into, outof=outof: into.copy_(outof),  # type: ignore[misc] # bound now
            repeats=repeats,
            device=device,
        )
        rate = bytes_of(host) / taken / _GB
        bench.say("bandwidth", f"{way} {device}", figure=rate, unit="GB/s", spread=spread)
    if not torch.equal(target.cpu(), host):
        bench.say("bandwidth", f"to {device}", FAILED, note="what was copied differs")
