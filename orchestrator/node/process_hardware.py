"""What a process of an attempt or a replica runs on, as its job or engine is told."""

from __future__ import annotations

from orchestrator.core.spec.emulation import HOST_DEVICE
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.job import Hardware

HOST_BACKEND = "gloo"  # of torch, for tensors in host memory


def hardware_of(pool: Pool, needs: Needs) -> Hardware:
    """Return what a worker runs on. A worker without a chip works on the host's cores.

    Each worker sees its own chips alone, so that its device is always the first one.
    """
    on_host = needs.devices == 0 or pool.device == HOST_DEVICE
    chip = pool.accelerator
    rates = {"bfloat16": chip.bf16_tflops, "float8_e4m3fn": chip.fp8_tflops}
    return Hardware(
        pool=pool.name,
        accelerator=chip.name,
        vendor=chip.vendor,
        device=HOST_DEVICE if on_host else f"{pool.device}:0",
        backend=HOST_BACKEND if needs.devices == 0 else pool.backend,
        formats=chip.formats,
        memory_gb=chip.memory_gb,
        emulated=pool.emulated,
        devices=needs.devices,
        tflops={name: rate for name, rate in rates.items() if rate and not on_host},
    )


def backends(hardware: Hardware) -> str:
    """Return the backends of a gang, as torch takes them: control traffic stays on the host."""
    kind = hardware.device.partition(":")[0]
    if kind == HOST_DEVICE:
        return hardware.backend
    return f"{HOST_DEVICE}:{HOST_BACKEND},{kind}:{hardware.backend}"
