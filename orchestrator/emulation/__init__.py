"""Chips that are not there: a torch device with their name, their operator gaps and their faults.

    catalogue.py        documented errors of the makers, as data
    fault_schedule.py   which faults come when
    chip.py             one worker's chip: lets the faults come out where they would
    silent.py           what it does wrongly without a word
    hooks.py            where operators and collectives ask whether something is due
    device.py           the torch device
    tensor.py           its tensors
    kernels.py          what is known of its operators
    late.py             how its operators fail
    backend.py          its module, `torch.npu`
    gaps.py             the operators that it lacks
    host.py             sees the operators of a plain CPU device
    streams.py          its streams and events
    groups.py           its backend for collectives
    reductions.py       what makers say of number types that those do not reduce

The arithmetic is the CPU's, and so is the speed: no figure is the chip's. torch is imported only
by what needs it.
"""

from orchestrator.emulation.chip import emulated_chip, provide

__all__ = ["emulated_chip", "provide"]
