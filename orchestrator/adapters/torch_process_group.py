"""Opens the process group of a gang, and sets how many threads torch may use.

torch is imported only by an attempt that needs it: a gang of one whose job does not import
torch pays nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.worker import rendezvous_port

# Between two tries to open a port that somebody else has at the moment.
CLASH_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
_CLASH = "already in use"
_INTERFACE = "GLOO_SOCKET_IFNAME"
_chosen = ""  # the interface that this module set


@contextmanager
def open_process_group(
    rendezvous: str | None,
    rank: int,
    world_size: int,
    backend: str,
    *,
    cpu_threads: int = 1,
    waits: AttemptSettings = PATIENT,
) -> Iterator[None]:
    """Hold the default process group open; a gang of one needs none.

    Args:
        rendezvous: `HOST:PORT` at which rank 0 opens the gang's store.
        rank: Number of this worker.
        world_size: Number of workers.
        backend: `torch.distributed` backend, or one for each device (`cpu:gloo,npu:hccl`).
        cpu_threads: Threads that one operator on the CPU may use.
        waits: How long the others may take to `meet`, and one operation (`collective`).

    Raises:
        ValueError: A gang of several has no `HOST:PORT`.
        RuntimeError: torch can't bring the gang together; also its subclasses.
    """
    if world_size > 1:
        _join(rendezvous, rank, world_size, backend, waits)
    threads(cpu_threads)
    try:
        yield
    finally:
        if world_size > 1:
            _leave()


def threads(count: int) -> None:
    """Let torch use `count` threads for an operator, if this process has torch at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)


def _join(
    rendezvous: str | None, rank: int, world_size: int, backend: str, waits: AttemptSettings
) -> None:
    import torch
    from torch import distributed

    host, _, port = (rendezvous or "").rpartition(":")
    if not host or not port.isdecimal():
        message = f"rendezvous {rendezvous!r} of {world_size!r} workers is no HOST:PORT"
        raise ValueError(message)
    host = host.strip("[]")
    if "gloo" in backend:
        _use_interface_to(host)
    kept = rendezvous_port.take(rendezvous or "") if rank == 0 else None
    store = _open_store(
        host,
        int(port),
        world_size,
        is_master=rank == 0,
        timeout=timedelta(seconds=waits.meet),
        **({"master_listen_fd": kept.detach()} if kept else {}),
    )
    distributed.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=waits.collective),
    )
    if "gloo" in backend:  # who leaves at once would close what another is still opening
        distributed.all_reduce(torch.zeros(1))


def _open_store(*where: Any, **how: Any) -> Any:  # noqa: ANN401 - torch does not type it
    """Return the store of the gang; a port that another has at the moment is tried again."""
    from torch import distributed

    for pause in (*CLASH_SECONDS, None):
        try:
            return distributed.TCPStore(*where, **how)  # type: ignore[attr-defined] # public, but not typed so
        except distributed.DistNetworkError as error:
            if pause is None or _CLASH not in str(error).lower():
                raise
            threading.Event().wait(pause)
    raise AssertionError("the last try returns or raises")


def _use_interface_to(host: str) -> None:
    """Have gloo use the interface that reaches `host`, unless the environment names one.

    By itself it takes the one of this machine's own name, which often is that of loopback.
    """
    global _chosen  # noqa: PLW0603 - what is set here may be set anew, what the user set may not
    if os.environ.get(_INTERFACE, "") == _chosen:  # noqa: TID251 - gloo reads it there alone
        _chosen = rendezvous_port.interface_to(host)
        if _chosen:
            os.environ[_INTERFACE] = _chosen  # noqa: TID251 - as above
        else:
            os.environ.pop(_INTERFACE, None)  # noqa: TID251 - as above


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():  # a job may have closed it
        distributed.destroy_process_group()
