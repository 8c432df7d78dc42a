"""How much memory each worker held at the most, as it is told after a training."""

from __future__ import annotations

import resource

import torch

from jobs.training.process_group import ProcessGroup

_KIB = 1024  # the unit in which Linux counts
_GB = 1e9


def peak_gb(device: torch.device) -> float:
    """Return the most that this worker has held: on its chip; on a CPU, as a whole process."""
    chip = None if device.type == "cpu" else torch.get_device_module(device.type)
    peak = getattr(chip, "max_memory_allocated", None)
    if peak is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / _GB
    return float(peak(device)) / _GB


def peaks(group: ProcessGroup) -> list[float]:
    """Return the peak of each worker, GB; every worker must call it."""
    return [float(text) for text in group.gather(f"{peak_gb(group.device):.6f}")]
