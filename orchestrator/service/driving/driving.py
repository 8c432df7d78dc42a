"""A run from its header to its end: ports made, controller driven, all given back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self

from orchestrator import wiring
from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.controller_ports import ControllerPorts, RunStore
from orchestrator.controller.loop import Controller, Observer
from orchestrator.controller.monotonic import MonotonicClock
from orchestrator.controller.outlook import drained_nodes, unused_on
from orchestrator.controller.output_recorder import OutputRecorder
from orchestrator.core.errors import ClusterError, StaleControllerError, StoreError
from orchestrator.core.runs.fleet_on_cluster import fleet_on_cluster
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import StageState
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.messages import Lease, Message
from orchestrator.output_reader import OutputReader
from orchestrator.ports import Cluster, EventLog, Queues, Serving, Tracker, Verdicts
from orchestrator.service.driving.beginning import begun
from orchestrator.service.driving.claim import claim
from orchestrator.service.driving.request import DriveRequest
from orchestrator.service.driving.services import Addresses, services, startable
from orchestrator.service.driving.view import View
from orchestrator.supervisor import holder


def drive(request: DriveRequest, view: View, *, new: bool, keep: Callable[[Run], bool]) -> Run:
    """Have the services up, drive the run here to its end, and return it.

    A `new` one is created; any other the database has, and it is taken over. What was started for
    it stays up afterwards where `keep` says so of the run.

    Raises:
        HeldError: It has a controller that lives, and the request is not to take it over by force.
    """
    finals: list[Run] = []
    pools = startable(request.settings, request.header.plan)
    with services(
        request.settings, request.home, pools, keep=lambda: any(map(keep, finals))
    ) as addresses:
        view.begins(request.header, again=not new)
        executors = _Executors.new(request, addresses)
        finals.append(_drive(request, view, executors, new=new))
        view.ended(finals[-1])
    return finals[-1]


def drive_new(request: DriveRequest, addresses: Addresses, view: View) -> Run:
    """Create the run, drive it here to its end on services that are up, and return it."""
    return _drive(request, view, _Executors.new(request, addresses), new=True)


def wind_down(request: DriveRequest, addresses: Addresses, view: View, reason: str) -> Run:
    """Take a run over whose controller is gone, cancel it for `reason`, and return it.

    Nothing is started for that: what its attempts held went with the controller, but for
    endpoints, which are taken away where the cluster is up.
    """
    executors = _Executors.tied(request, addresses, reason)
    return _drive(request, view, executors, new=False)


class _DrivenRuns(RunStore, Verdicts, Protocol):
    """What a controller records, and what is shown of a run beside."""


@dataclass(frozen=True, slots=True)
class _Executors:
    """What a controller holds work with, and where MLflow is.

    `reason` is why it is to cancel the run, if it is.
    """

    cluster: Cluster
    serving: Serving
    tracking: str
    reason: str = ""

    @classmethod
    def new(cls, request: DriveRequest, addresses: Addresses) -> Self:
        cluster = wiring.cluster(request.settings, request.header.plan, addresses.cluster)
        serving = wiring.serving(request.settings, request.home, addresses.cluster)
        return cls(cluster, serving, addresses.tracking)

    @classmethod
    def tied(cls, request: DriveRequest, addresses: Addresses, reason: str) -> Self:
        settings = request.settings
        here = replace(settings, cluster=replace(settings.cluster, kind="local"))
        serving = wiring.serving(
            settings if addresses.cluster else here, request.home, addresses.cluster
        )
        cluster = wiring.cluster(here, request.header.plan, "")
        return cls(cluster, serving, addresses.tracking, reason)


def _drive(request: DriveRequest, view: View, executors: _Executors, *, new: bool) -> Run:
    header = request.header
    with ExitStack() as closing:
        closing.callback(executors.cluster.close)
        closing.callback(executors.serving.settle)  # it needs the cluster
        store = wiring.database(request.home, request.settings.database.patience)
        interrupts = closing.enter_context(view.interruptible())
        _record(request, executors, store, new=new)
        closing.enter_context(begun(store, header))
        best_effort = BestEffort()
        closing.callback(lambda: _show_untold(view, best_effort))
        shown = _ViewedTracker(view, len(store.events(header.run)), best_effort)
        ports = _controller_ports(request, executors, store, shown, best_effort)
        clock = MonotonicClock(ports.clock, store.now())
        output = OutputRecorder(store, ports.artifacts, header.run, clock, best_effort)
        observer = _both(best_effort, output.observe, view.observe)
        controller = Controller(header, ports, _attempt_defaults(request, store), observer)
        closing.enter_context(_parting(controller, ports, request))
        closing.enter_context(output)  # the tracker shows its last lines too
        closing.enter_context(controller.lease)
        shown.follow(controller)
        interrupts.cancel(controller)
        if executors.reason:
            controller.cancel(executors.reason)
        return controller.drive()


def _record(
    request: DriveRequest, executors: _Executors, store: _DrivenRuns, *, new: bool
) -> None:
    """Have the database hold the run, a `new` one or one that may be taken over.

    Not before the cluster is there, and its nodes have shown that they read the storage: what
    never could run is no run.
    """
    settings, header = request.settings, request.header
    if new:
        _prove_storage(request, executors, store, wiring.cluster_address(settings))
        store.create(header, header.created)
    elif not claim(store, header, by_force=request.by_force).epoch:
        _prove_storage(request, executors, store, settings.cluster.address)


def _controller_ports(
    request: DriveRequest,
    executors: _Executors,
    store: _DrivenRuns,
    shown: _ViewedTracker,
    best_effort: BestEffort,
) -> ControllerPorts:
    """Return what the controller works with; what it tells the tracker is `shown` too."""
    settings, home = request.settings, request.home
    artifacts = wiring.artifact_store(wiring.storage_uri(settings, home))
    written = OutputReader(store, lambda: artifacts, request.header.run)
    shown.tracker = wiring.tracker(
        settings, store, executors.tracking, home, written, shown.last_event
    )
    return ControllerPorts(
        cluster=executors.cluster,
        serving=executors.serving,
        store=store,
        artifacts=artifacts,
        tracker=shown,
        clock=wiring.clock(),
        gates=wiring.gates(store),
        holder=holder.name(),
        by=request.by,
        patience=settings.database.patience,
        leave=partial(wiring.raise_if_leaving, settings, home),
        best_effort=best_effort,
    )


def _attempt_defaults(request: DriveRequest, store: EventLog) -> AttemptDefaults:
    """Return what all attempts of the run have in common."""
    header = request.header
    return replace(
        wiring.attempt_defaults(request.settings, request.home, reuse=request.reuse),
        kept_results=request.kept_results,
        earlier=_stored(store, header.continues) if header.continues else None,
    )


def _prove_storage(
    request: DriveRequest, executors: _Executors, queues: Queues, address: str
) -> None:
    """Have this host, and nodes of a cluster that is not ours, show that they use the storage."""
    header = request.header
    if executors.reason:
        return
    if not address or request.settings.cluster.kind != "ray":
        wiring.prove_storage_here(request.settings, request.home, header.run)
    else:
        drained = drained_nodes(unused_on(fleet_on_cluster(header), queues))
        wiring.prove_storage(
            request.settings, request.home, header.run, header.plan.pools, drained
        )


def _stored(store: EventLog, run: str) -> Run:
    return fold(store.header(run), ((item.at, item.event) for item in store.events(run)))


@contextmanager
def _parting(
    controller: Controller, ports: ControllerPorts, request: DriveRequest
) -> Iterator[None]:
    """Leave the run as it stands in the tracker too, and its lease to nobody."""
    name = controller.run.header.run
    try:
        yield
    except StaleControllerError as error:
        ports.tracker.close(0.0)  # what is to be written is the other's now
        lease = outcome(partial(ports.store.lease, name)).value
        by = f" (epoch {lease.epoch})" if lease else ""
        message = f"another controller has taken run {name} over{by}; this one stops"
        raise StaleControllerError(message) from error
    except (ClusterError, StoreError) as error:
        error.run = name
        raise
    finally:
        if not isinstance(sys.exception(), StaleControllerError):
            part = partial(_part, controller.run, ports, request)
            ports.best_effort.tell("last words were not written", part)


def _part(run: Run, ports: ControllerPorts, request: DriveRequest) -> None:
    """Write the last of the run; a lease that stays has the reaper do what could not be done.

    No reaper has the run go on then: it was left in order.
    """
    outcome(partial(_leave, run, ports), but=())
    if not ports.tracker.close(request.settings.tracking.finish):
        return
    if not run.done:
        reason = "its controller has stopped before the end"
        if not wiring.bury(request.home, run, reason):
            return
    ports.store.drop_lease(run.header.run, run.epoch)


def _leave(run: Run, ports: ControllerPorts) -> None:
    at = -ports.store.now()
    lease = Lease(run=run.header.run, epoch=run.epoch, at=at, holder=ports.holder)
    ports.store.renew_lease(lease)


def serves(run: Run) -> bool:
    """Return whether the run left an endpoint behind."""
    return any(
        stage.planned.stage.endpoint and stage.state is StageState.SUCCEEDED
        for stage in run.stages.values()
    )


def _both(best_effort: BestEffort, output: Observer, view: Observer) -> Observer:
    def observe(stage: str, attempt: int, message: Message) -> None:
        output(stage, attempt, message)
        best_effort.tell("lines were not shown", partial(view, stage, attempt, message))

    return observe


def _show_untold(view: View, best_effort: BestEffort) -> None:
    if best_effort.untold:
        best_effort.tell("lines were not shown", partial(view.untold, best_effort.untold))


class _ViewedTracker:
    """A tracker that tells the view too, and shows no more than its own controller has done."""

    tracker: Tracker

    def __init__(self, view: View, events: int, best_effort: BestEffort) -> None:
        self._view, self._events, self._best_effort = view, events, best_effort
        self._controller: Controller | None = None

    def follow(self, controller: Controller) -> None:
        """Show this controller's run from now on."""
        self._controller = controller
        self._best_effort.tell(
            "lines were not shown", partial(self._view.follow, lambda: controller.run)
        )

    def last_event(self) -> int:
        """Return the number of the last event that the controller has committed, or found."""
        return self._controller.run.seq if self._controller else self._events

    def notify(self) -> None:
        self._best_effort.tell("notices were not taken", self.tracker.notify)
        self._best_effort.tell("lines were not shown", self._view.changed)

    def close(self, timeout: float) -> bool:
        return self.tracker.close(timeout)
