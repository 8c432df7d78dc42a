"""The chips that are there, and how fast their memory is."""

from __future__ import annotations

import torch

from jobs.qualification.bench import FAILED, LIMITED, SKIPPED, Bench, ask

_GB = 1e9


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
    seen = devices_of(bench)
    names = sorted(
        {str(ask(device, "get_device_name", device.index) or device.type) for device in seen}
    )
    status = FAILED if len(seen) < expected else LIMITED if len(seen) > expected else "passed"
    note = f"{len(seen)} of {expected}: {', '.join(names)}"
    bench.say("devices", what, status, figure=float(len(seen)), note=note)
    for device in seen:
        total = float(torch.ones(1000, device=device).sum())
        if total != 1000:  # noqa: PLR2004 - as many ones
            bench.say("devices", str(device), FAILED, note=f"1000 ones make {total!r}")


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
    directions = (("to", target, host), ("from", host, target))
    for direction, into, outof in directions:
        taken = bench.seconds(
            lambda into=into, outof=outof: into.copy_(outof),  # type: ignore[misc] # bound now
            repeats=repeats,
            device=device,
        )
        rate = bytes_of(host) / taken / _GB
        bench.say("bandwidth", f"{direction} {device}", figure=rate, unit="GB/s", spread=spread)
    if not torch.equal(target.cpu(), host):
        bench.say("bandwidth", f"to {device}", FAILED, note="what was copied differs")
