"""A run from its header to its end: ports made, controller driven, all given back."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self

from orchestrator import wiring
from orchestrator.adapters import terminal
from orchestrator.adapters.log_files import LogFiles
from orchestrator.controller.dependencies import Dependencies
from orchestrator.controller.loop import Controller, Observer
from orchestrator.core.errors import ClusterError, StaleControllerError, StoreError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import StageState
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.messages import Message, Untold
from orchestrator.ports import Cluster, EventLog, Serving, Tracker
from orchestrator.session.beginning import begun
from orchestrator.session.claim import claim
from orchestrator.session.interrupts import Interrupts
from orchestrator.session.order import Order
from orchestrator.session.services import Addresses
from orchestrator.supervisor import holder

SECONDS_TO_FINISH_TRACKING = 60.0
OUTPUT = "output.txt"  # what a terminal that is gone should have shown


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

    def untold(self, untold: Sequence[Untold]) -> None:
        """Take notice of what could not be told of the run."""
        ...


def launch(order: Order, addresses: Addresses, view: View) -> Run:
    """Create the run, drive it here to its end, and return it."""
    return _drive(order, addresses, view, _Hands.new(order, addresses))


def resume(order: Order, addresses: Addresses, view: View) -> Run:
    """Take a run over that the event store has, drive it to its end, and return it.

    Raises:
        HeldError: It has a controller that lives, and the order is not to take it over by force.
    """
    return _drive(order, addresses, view, _Hands.new(order, addresses), new=False)


def wind_down(order: Order, addresses: Addresses, view: View, reason: str) -> Run:
    """Take a run over whose controller is gone, cancel it for `reason`, and return it.

    Nothing is started for that: what its attempts held went with the controller, but for
    endpoints, which are taken away where the cluster is up.
    """
    hands = _Hands.tied(order, addresses, reason)
    return _drive(order, addresses, view, hands, new=False)


@dataclass(frozen=True, slots=True)
class _Hands:
    """What a controller holds work with; `reason` is why it is to cancel the run, if it is."""

    cluster: Cluster
    serving: Serving
    reason: str = ""

    @classmethod
    def new(cls, order: Order, addresses: Addresses) -> Self:
        cluster = wiring.cluster(order.found, order.header.plan, addresses.cluster)
        return cls(cluster, wiring.serving(order.found, order.at, addresses.cluster))

    @classmethod
    def tied(cls, order: Order, addresses: Addresses, reason: str) -> Self:
        found = order.found
        here = replace(found, cluster=replace(found.cluster, kind="local"))
        serving = wiring.serving(found if addresses.cluster else here, order.at, addresses.cluster)
        return cls(wiring.cluster(here, order.header.plan, ""), serving, reason)


def _drive(
    order: Order, addresses: Addresses, view: View, hands: _Hands, *, new: bool = True
) -> Run:
    found, header, at = order.found, order.header, order.at
    with ExitStack() as closing:
        closing.callback(hands.cluster.close)
        closing.callback(hands.serving.settle)  # it needs the cluster
        store = wiring.event_store(at, found.database.patience)
        interrupts = closing.enter_context(Interrupts())
        if new:  # not before the cluster is there: what never could run is no run
            store.create(header, header.created)
        else:
            claim(store, header, by_force=order.by_force)
        closing.enter_context(begun(store, header))
        best_effort = BestEffort()
        closing.callback(lambda: _show_untold(view, best_effort))
        logs = LogFiles(at / "logs" / header.run)
        terminal.spare(logs.folder / OUTPUT)
        closing.callback(best_effort.tell, "log files were not closed", logs.close)
        shown = _Shown(view, len(store.events(header.run)), best_effort)
        shown.tracker = wiring.tracker(
            found, store, addresses.tracking, logs.folder, shown.last_event
        )
        deps = Dependencies(
            cluster=hands.cluster,
            serving=hands.serving,
            store=store,
            artifacts=wiring.artifact_store(wiring.storage_uri(found, at)),
            tracker=shown,
            clock=wiring.clock(),
            gates=wiring.gates(store),
            holder=holder.name(),
            patience=found.database.patience,
            leave=partial(wiring.raise_if_leaving, found, at),
            best_effort=best_effort,
        )
        bench = replace(
            wiring.workbench(found, at, reuse=order.reuse),
            kept=order.kept,
            earlier=_stored(store, header.continues) if header.continues else None,
        )
        observer = _both(best_effort, logs.observe, view.observe)
        controller = Controller(header, deps, bench, observer)
        closing.enter_context(_parting(controller, deps, order))
        closing.enter_context(controller.lease)
        shown.follow(controller)
        interrupts.cancel(controller)
        if hands.reason:
            controller.cancel(hands.reason)
        return controller.drive()


def _stored(store: EventLog, run: str) -> Run:
    return fold(store.header(run), ((item.at, item.event) for item in store.events(run)))


@contextmanager
def _parting(controller: Controller, deps: Dependencies, order: Order) -> Iterator[None]:
    """Leave the run as it stands in the tracker too, and its lease to nobody."""
    name = controller.run.header.run
    try:
        yield
    except StaleControllerError as error:
        deps.tracker.close(0.0)  # what is to be written is the other's now
        lease = outcome(partial(deps.store.lease, name)).value
        by = f" (epoch {lease.epoch})" if lease else ""
        message = f"another controller has taken run {name} over{by}; this one stops"
        raise StaleControllerError(message) from error
    except ClusterError as error:
        message = f"{error}; when it is up, run {name} goes on: orchestrator resume {name}"
        raise ClusterError(message) from error
    except StoreError as error:
        message = f"{error}; when it is mended, run {name} goes on: orchestrator resume {name}"
        raise StoreError(message) from error
    finally:
        if not isinstance(sys.exception(), StaleControllerError):
            part = partial(_part, controller.run, deps, order)
            deps.best_effort.tell("last words were not written", part)


def _part(run: Run, deps: Dependencies, order: Order) -> None:
    """Write the last of the run; a lease that stays has the reaper do what could not be done."""
    if not deps.tracker.close(SECONDS_TO_FINISH_TRACKING):
        return
    if not run.done:
        reason = "its controller has stopped before the end"
        if not wiring.bury(order.at, run, reason):
            return
    deps.store.drop_lease(run.header.run, run.epoch)


def serves(run: Run) -> bool:
    """Return whether the run left an endpoint behind."""
    return any(
        stage.planned.stage.endpoint and stage.state is StageState.SUCCEEDED
        for stage in run.stages.values()
    )


def _both(best_effort: BestEffort, logs: Observer, view: Observer) -> Observer:
    def observe(stage: str, attempt: int, message: Message) -> None:
        best_effort.tell("log lines were not written", partial(logs, stage, attempt, message))
        best_effort.tell("lines were not shown", partial(view, stage, attempt, message))

    return observe


def _show_untold(view: View, best_effort: BestEffort) -> None:
    if best_effort.untold:
        best_effort.tell("lines were not shown", partial(view.untold, best_effort.untold))


class _Shown:
    """A tracker that tells the view too, and shows no more than its own controller has done."""

    tracker: Tracker

    def __init__(self, view: View, events: int, best_effort: BestEffort) -> None:
        self._view, self._events, self._best_effort = view, events, best_effort
        self._controller: Controller | None = None

    def follow(self, controller: Controller) -> None:
        """Show this controller's run from now on."""
        self._controller = controller
        self._best_effort.tell("lines were not shown", partial(self._view.follow, controller))

    def last_event(self) -> int:
        """Return the number of the last event that the controller has committed, or found."""
        return self._controller.run.seq if self._controller else self._events

    def notify(self) -> None:
        self._best_effort.tell("notices were not taken", self.tracker.notify)
        self._best_effort.tell("lines were not shown", self._view.changed)

    def close(self, timeout: float) -> bool:
        return self.tracker.close(timeout)
