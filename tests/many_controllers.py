"""One of many controllers that share a database: drives whatever run nobody else drives.

`python -m tests.many_controllers URL FILE SEED` goes through the runs in an order of its own until
all are over. Each attempt that it starts is a line of FILE, which all append to.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.database import SqlDatabase
from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.controller_ports import ControllerPorts
from orchestrator.controller.loop import Controller
from orchestrator.core.errors import HeldError, StaleControllerError, StoreError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import AttemptRequest, Message, Placed, Points, PoolStatus, Succeeded
from orchestrator.ports import Cluster
from orchestrator.service.driving.claim import claim
from orchestrator.supervisor import holder
from tests.fakes import FakeArtifacts, FakeGates, FakeTracker

T = TypeVar("T")
DEFAULTS = AttemptDefaults(
    packages=("jobs",), code=(), storage="mem://", reuse_key=lambda _run, _stage: None
)
SAID: Sequence[Message] = (
    Placed(("n1",)),
    Points(1, {"loss": 2.0, "lr": 0.1}, 1.0),
    Points(2, {"loss": 1.0, "lr": 0.1}, 2.0),
    Succeeded(None, {"loss": 1.0}),
)


class CountedCluster:
    """Runs nothing, and says in a file what it was asked to start; a message at each question."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._left: dict[str, list[Message]] = {}

    def start(self, request: AttemptRequest) -> None:
        os.write(self._file, f"{request.key}\n".encode())
        self._left[request.key] = list(SAID)

    def poll(self, key: str) -> Sequence[Message]:
        left = self._left.get(key)
        return (left.pop(0),) if left else ()

    def cancel(self, key: str) -> None:
        self._left.pop(key, None)

    def prepare(self, request: AttemptRequest) -> None:
        pass

    def release(self, run: str, stage: str) -> None:
        pass

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        return {}

    def close(self) -> None:
        pass


def drive(store: SqlDatabase, header: RunHeader, cluster: Cluster) -> bool:
    """Drive a run to its end, unless somebody else does; return whether it is over."""
    if claim(store, header, by_force=False).done:
        return True
    deps = ControllerPorts(
        cluster=cluster,
        serving=cluster,
        store=store,
        artifacts=FakeArtifacts(),
        tracker=FakeTracker(),
        clock=SystemClock(),
        gates=FakeGates(),
        holder=holder.name(),
    )
    controller = Controller(header, deps, DEFAULTS)
    with controller.lease:
        run = controller.drive()
    store.drop_lease(header.run, run.epoch)
    return run.done


def main(url: str, file: str, seed: str) -> None:
    """Drive runs until none is left; a database that is away is asked again."""
    cluster, clock = CountedCluster(Path(file)), SystemClock()
    store = again(partial(SqlDatabase, url), clock)
    left = list(again(partial(store.runs, 10_000), clock))
    random.Random(seed).shuffle(left)  # noqa: S311 - an order, no secret
    while left:
        for header in tuple(left):
            with suppress(HeldError, StaleControllerError):
                if again(partial(drive, store, header, cluster), clock):
                    left.remove(header)
        clock.sleep(0.2)
    store.close()


def again(call: Callable[[], T], clock: SystemClock) -> T:
    """Return what `call` does, once the database is there."""
    while True:
        try:
            return call()
        except StaleControllerError:
            raise
        except StoreError:
            clock.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
