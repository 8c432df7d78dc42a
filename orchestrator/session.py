"""A run from its header to its end: services up, ports made, controller driven, all given back.

A service that was started for a run is stopped after it, unless the run left an endpoint behind
that needs it. A service that was up before stays up.
"""

from __future__ import annotations

import getpass
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self, TypeAlias

from orchestrator import wiring
from orchestrator.adapters.log_files import LogFiles
from orchestrator.control.loop import Controller, World
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run, RunHeader
from orchestrator.core.settings import Settings
from orchestrator.core.spec import Pool
from orchestrator.core.state import StageState
from orchestrator.messages import Message
from orchestrator.ports import Observer, Tracker

SECONDS_TO_FINISH_TRACKING = 60.0
_Handler: TypeAlias = Any  # of a signal: a function, or one of signal's own numbers


class View(Protocol):
    """What shows a run while it goes on."""

    def follow(self, controller: Controller) -> None:
        """Show this controller's run from now on."""
        ...

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Take notice of what an attempt says."""
        ...

    def changed(self) -> None:
        """Take notice that the run has a new event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the services are; empty where they aren't needed."""

    cluster: str
    tracking: str


def new_header(found: Settings, planned: Plan) -> RunHeader:
    """Return the header of a new run; ids sort by time."""
    now = wiring.clock().now()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return RunHeader(
        run=f"{found.pipeline.name}-{stamp}-{secrets.token_hex(2)}",
        plan=planned,
        config=found.resolved,
        overrides=found.overrides,
        tags={**_origin(), **found.tags},
        created=now,
    )


def _origin() -> dict[str, str]:
    """Return who starts a run, from where, by MLflow's own tag names."""
    tags = {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "orchestrator launch",
        "mlflow.source.type": "LOCAL",
    }
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
        capture_output=True,
        text=True,
        check=False,
    )
    if git.returncode == 0:
        tags["mlflow.source.git.commit"] = git.stdout.strip()
    return tags


def startable(found: Settings, planned: Plan) -> Mapping[str, Pool]:
    """Return the pools that a cluster on this machine needs: the plan's, and all emulated ones.

    All of them, so that a later launch with other roles finds its pools on the same cluster.
    """
    emulated = {n: p for n, p in found.fleet.pools.items() if p.emulated and p.available}
    return {**emulated, **planned.pools}


@contextmanager
def services(
    found: Settings, at: Path, pools: Mapping[str, Pool], *, keep: Callable[[], bool]
) -> Iterator[Addresses]:
    """Have the services up; afterwards stop those that were started here, unless `keep()`.

    Raises:
        ClusterError: The cluster can't be started.
        TrackingError: The tracking server can't be started or reached.
    """
    with ExitStack() as started:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        started.callback(signal.signal, signal.SIGTERM, before)
        with ThreadPoolExecutor(1) as beside:
            tracking = beside.submit(wiring.start_tracking, found, at)
            try:
                address, ours = wiring.start_cluster(found, at, pools)
                if ours:
                    started.callback(wiring.stop_cluster, at)
            finally:
                uri, ours = tracking.result()
                if ours:
                    started.callback(wiring.stop_tracking, at)
        yield Addresses(cluster=address, tracking=uri)
        if keep():
            started.pop_all()
            signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run that shall be driven: its config, its header, its home; `reuse` of earlier results."""

    found: Settings
    header: RunHeader
    at: Path
    reuse: bool = True


def launch(order: Order, addresses: Addresses, view: View) -> Run:
    """Create the run, drive it here to its end, and return it."""
    return _drive(order, addresses, view, new=True)


def resume(order: Order, addresses: Addresses, view: View) -> Run:
    """Drive a run that the event store has to its end, and return it."""
    return _drive(order, addresses, view, new=False)


def _drive(order: Order, addresses: Addresses, view: View, *, new: bool) -> Run:
    found, header, at = order.found, order.header, order.at
    with ExitStack() as closing:
        cluster = wiring.cluster(found, header.plan, addresses.cluster)
        closing.callback(cluster.close)
        serving = wiring.serving(found, addresses.cluster)
        bench = wiring.workbench(found, at, reuse=order.reuse)
        store = wiring.event_store(at)
        interrupts = closing.enter_context(_Interrupts())
        if new:  # not before the cluster is there: what never could run is no run
            store.create(header, header.created)
        logs = LogFiles(at / "logs" / header.run)
        tracker = wiring.tracker(found, store, header.run, addresses.tracking, logs.folder)
        closing.callback(tracker.close, SECONDS_TO_FINISH_TRACKING)
        closing.callback(logs.close)
        world = World(
            cluster=cluster,
            serving=serving,
            store=store,
            artifacts=wiring.artifact_store(wiring.storage_uri(found, at)),
            tracker=_Shown(tracker, view),
            clock=wiring.clock(),
            gates=wiring.gates(store),
        )
        controller = Controller(header, world, bench, _both(logs.observe, view.observe))
        view.follow(controller)
        interrupts.cancel(controller)
        return controller.drive()


def serves(run: Run) -> bool:
    """Return whether the run left an endpoint behind."""
    return any(
        stage.planned.stage.endpoint and stage.state is StageState.SUCCEEDED
        for stage in run.stages.values()
    )


def _both(first: Observer, second: Observer) -> Observer:
    def observe(stage: str, attempt: int, message: Message) -> None:
        first(stage, attempt, message)
        second(stage, attempt, message)

    return observe


class _Shown:
    """A tracker that tells the view too."""

    def __init__(self, tracker: Tracker, view: View) -> None:
        self._tracker = tracker
        self._view = view

    def notify(self) -> None:
        self._tracker.notify()
        self._view.changed()

    def close(self, timeout: float) -> bool:
        return self._tracker.close(timeout)


class _Interrupts:
    """Lets the first Ctrl-C or SIGTERM cancel a run, and a second one break it off."""

    def __init__(self) -> None:
        self._controller: Controller | None = None
        self._reason = ""
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def cancel(self, controller: Controller) -> None:
        """Cancel this controller's run, now if a signal has come already."""
        self._controller = controller
        if self._reason:
            controller.cancel(self._reason)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's form
        self._reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._controller:
            self._controller.cancel(self._reason)
