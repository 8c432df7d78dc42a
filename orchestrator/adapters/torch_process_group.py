"""Opens the process group of a gang, and sets how many threads torch may use.

torch is imported only by an attempt that needs it: a gang of one whose job does not import
torch pays nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.node import rendezvous_port

# Between two tries to open a port that somebody else has at the moment.
CLASH_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
_CLASH = "already in use"
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
_READY, _ALL_READY = "orchestrator/ready", "orchestrator/all-ready"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_chosen: dict[str, str] = {}  # what this module set, by variable


@contextmanager
def open_process_group(  # noqa: PLR0913 - what a worker says, and what its host adds
    rendezvous: str | None,
    rank: int,
    world_size: int,
    backend: str,
    *,
    cpu_threads: int = 1,
    fetch: Callable[[], object] = lambda: None,
    go_on: Callable[[], object] = lambda: None,
    waits: AttemptSettings = PATIENT,
    interface_variable: str | None = None,
    limits: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[None]:
    """Hold the default process group open; a gang of one needs none.

    The workers meet at once, then each fetches what it reads. That may take one of them long: the
    others wait for it however long that is, and open the group when all have what they read.

    Args:
        rendezvous: `HOST:PORT` at which rank 0 opens the gang's store.
        rank: Number of this worker.
        world_size: Number of workers.
        backend: `torch.distributed` backend, or one for each device (`cpu:gloo,npu:hccl`).
        cpu_threads: Threads that one operator on the CPU may use.
        fetch: Fetches what this worker reads.
        go_on: Raises where this worker shall wait no longer.
        waits: How long the others may take to `meet`, and one operation (`collective`).
        interface_variable: Where the backend of the chip reads which interface it may use.
        limits: Variables in which it reads how long something may take, with their values.

    Raises:
        ValueError: A gang of several has no `HOST:PORT`.
        RuntimeError: torch can't bring the gang together; also its subclasses.
    """
    if world_size > 1:
        variables = (GLOO_INTERFACE, interface_variable or GLOO_INTERFACE)
        store = _meet(rendezvous, rank, world_size, waits.meet, variables)
        for variable, limit in limits.items():
            _set_unless_named(variable, limit)
        fetch()
        _wait_for_all(store, world_size, go_on)
        _open(store, rank, world_size, backend, waits.collective)
    else:
        fetch()
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


def _meet(
    rendezvous: str | None,
    rank: int,
    world_size: int,
    seconds: float,
    interface_variables: Iterable[str],
) -> Any:  # noqa: ANN401 - torch does not type it
    """Return the store of the gang, once all workers are there."""
    host, _, port = (rendezvous or "").rpartition(":")
    if not host or not port.isdecimal():
        message = f"rendezvous {rendezvous!r} of {world_size!r} workers is no HOST:PORT"
        raise ValueError(message)
    host = host.strip("[]")
    _use_interface_to(host, interface_variables)
    kept = rendezvous_port.take(rendezvous or "") if rank == 0 else None
    return _open_store(
        host,
        int(port),
        world_size,
        is_master=rank == 0,
        timeout=timedelta(seconds=seconds),
        **({"master_listen_fd": kept.detach()} if kept else {}),
    )


def _wait_for_all(store: Any, world_size: int, go_on: Callable[[], object]) -> None:  # noqa: ANN401 - as above
    """Wait until all workers have what they read, while `go_on` says nothing against it."""
    if store.add(_READY, 1) == world_size:
        store.set(_ALL_READY, "")
    pause = _FIRST_PAUSE
    while not store.check([_ALL_READY]):
        go_on()
        threading.Event().wait(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _open(store: Any, rank: int, world_size: int, backend: str, seconds: float) -> None:  # noqa: ANN401 - as above
    import torch
    from torch import distributed

    distributed.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=seconds),
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


def _use_interface_to(host: str, variables: Iterable[str]) -> None:
    """Have backends use the interface that reaches `host`, unless the environment names one.

    By itself gloo takes that of this machine's own name, which often is that of loopback; others
    take the first one of a list of their own.
    """
    interface = rendezvous_port.interface_to(host)
    for variable in variables:
        _set_unless_named(variable, interface)


def _set_unless_named(variable: str, value: str) -> None:
    """Set a variable: what was set here may be set anew, what the user set may not."""
    if os.environ.get(variable, "") != _chosen.get(variable, ""):  # noqa: TID251 - backends read it there alone
        return
    _chosen[variable] = value
    if value:
        os.environ[variable] = value  # noqa: TID251 - as above
    else:
        os.environ.pop(variable, None)  # noqa: TID251 - as above


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():  # a job may have closed it
        distributed.destroy_process_group()
