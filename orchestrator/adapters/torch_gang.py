"""Opens the process group of a gang, and sets how many threads torch may use.

torch is imported only by an attempt that needs it: a gang of one whose job does not import
torch pays nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

SETUP_SECONDS = 60.0
COLLECTIVE_SECONDS = 600.0


@contextmanager
def open_gang(
    rendezvous: str | None,
    rank: int,
    world_size: int,
    backend: str,
    *,
    cpu_threads: int = 1,
    setup_seconds: float = SETUP_SECONDS,
) -> Iterator[None]:
    """Hold the default process group open; a gang of one needs none.

    Args:
        rendezvous: `HOST:PORT` at which rank 0 opens the gang's store.
        rank: Number of this worker.
        world_size: Number of workers.
        backend: `torch.distributed` backend.
        cpu_threads: Threads that one operator on the CPU may use.
        setup_seconds: How long the others may take to come.

    Raises:
        ValueError: A gang of several has no `HOST:PORT`.
        RuntimeError: torch can't bring the gang together; also its subclasses.
    """
    if world_size > 1:
        _join(rendezvous, rank, world_size, backend, setup_seconds)
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
    rendezvous: str | None, rank: int, world_size: int, backend: str, setup_seconds: float
) -> None:
    from torch import distributed

    host, _, port = (rendezvous or "").rpartition(":")
    if not host or not port.isdecimal():
        message = f"rendezvous {rendezvous!r} of {world_size!r} workers is no HOST:PORT"
        raise ValueError(message)
    store = distributed.TCPStore(  # type: ignore[attr-defined] # public, but not typed so
        host.strip("[]"),
        int(port),
        world_size,
        is_master=rank == 0,
        timeout=timedelta(seconds=setup_seconds),
    )
    distributed.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=COLLECTIVE_SECONDS),
    )


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():  # a job may have closed it
        distributed.destroy_process_group()
