"""A shim: torchtitan 0.3 on a CPU, for machines without an accelerator; never for one that has.

`python -m jobs.torchtitan.cpu ...` is there what `python -m torchtitan.train ...` is elsewhere, by
`--parallelism.spmd_backend partial_dtensor`. What it mends:

- torchtitan takes "cuda" for the device where it knows no other;
- its attention for language models has no backward pass on a CPU: here the one for images takes
  its place, which is causal over a packed row, whatever documents are in it;
- gloo knows sums, but none that are scaled on the way (a scale of one is none);
- gloo's barrier takes no device, and torch 2.13 has no `torch.distributed.set_timeout`;
- `torch.cpu` has no memory to tell of.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule


def mend() -> None:
    """Mend torch and torchtitan in this process; before anything of torchtitan is imported."""
    _as_an_accelerator()
    _gloo()
    _attention()


def _as_an_accelerator() -> None:
    """Have the CPU be the device, with what torchtitan asks a device."""
    _replace(torch._utils, _get_available_device_type=lambda: "cpu")  # noqa: SLF001 - the shim's very task
    _replace(
        torch.cpu,
        get_device_name=lambda *_: "CPU",
        get_device_properties=lambda *_: SimpleNamespace(total_memory=1),
        reset_peak_memory_stats=lambda *_: None,
        empty_cache=lambda: None,
        memory_stats=lambda *_: {},
    )


def _gloo() -> None:
    """Ask gloo for what it has."""
    barrier: Any = dist.barrier
    divide: Any = FSDPModule.set_gradient_divide_factor

    def without_device(group: Any = None, async_op: bool = False, **_: Any) -> Any:  # noqa: ANN401, FBT001, FBT002 - torch's own signature
        return barrier(group, async_op)

    def by_plain_sums(module: Any, factor: float) -> None:  # noqa: ANN401 - torch's own class
        module.set_force_sum_reduction_for_comms(True)
        divide(module, factor)

    _replace(dist, barrier=without_device, set_timeout=lambda *_: None)
    _replace(FSDPModule, set_gradient_divide_factor=by_plain_sums)


def _attention() -> None:
    """Let language models have the attention that runs on a CPU."""
    from torchtitan.models.common import attention, config_utils

    causal = attention.ScaledDotProductAttention.Config
    _replace(config_utils, get_attention_config=lambda _: causal())


def _replace(owner: object, **values: object) -> None:
    """Replace names of a module or a class."""
    for name, value in values.items():
        setattr(owner, name, value)


if __name__ == "__main__":
    mend()
    from torchtitan.train import main

    main()
