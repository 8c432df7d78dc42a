"""One deployment on its way, in a thread: probe, deploy, watch the replicas, ask a question.

A deployment that fails or is cancelled is removed, unless an earlier revision of the endpoint
was there: then Serve stops the update, and the earlier one serves on.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress

from orchestrator.adapters.rayserve import operations, placement, state
from orchestrator.adapters.rayserve.operations import FOREIGN
from orchestrator.adapters.rayserve.placement import Room
from orchestrator.adapters.rayserve.replica import Fetch, MakeClock
from orchestrator.core.endpoints import Deployment
from orchestrator.core.errors import ServingError
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.messages import Failed, LogLine, Message, Placed, Succeeded, Waiting

_POLL_SECONDS = 0.25
_REMOVE_SECONDS = 40.0


class _RefusedError(Exception):
    """The deployment ends here; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.evidence)
        self.failure = failure


class _CancelledError(Exception):
    """The deployment was given up."""


class Rollout:
    """One deployment, from the request to the first answer."""

    def __init__(self, deployment: Deployment, port: int, fetch: Fetch, clock: MakeClock) -> None:
        self._deployment = deployment
        self._name = deployment.endpoint.name
        self._pool = deployment.pool.name
        self._port = port
        self._fetch = fetch
        self._clock = clock
        self._deployed = False
        self._earlier: frozenset[str] = frozenset()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=deployment.key, daemon=True)
        self._thread.start()

    def said(self) -> list[Message]:
        """Return what is new, without waiting."""
        return [self._messages.get() for _ in range(self._messages.qsize())]

    def cancel(self) -> None:
        """Give up, and wait until what was deployed is gone."""
        self._cancelled.set()
        self._thread.join(_REMOVE_SECONDS)

    # --- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            last = self._outcome()
        except BaseException as error:
            self._messages.put(Failed(self._failure(f"a defect of ours: {error!r}")))
            raise
        if last is not None:
            self._messages.put(last)

    def _outcome(self) -> Succeeded | Failed | None:
        began = time.monotonic()
        try:
            self._deploy(surge=self._place())
            self._watch()
            url = operations.ask(self._name, self._port)
        except _CancelledError:
            self._remove()
            return None
        except _RefusedError as error:
            self._remove()
            return Failed(error.failure)
        except (ServingError, *FOREIGN) as error:
            self._remove()
            return Failed(self._failure(str(error)))
        self._log(f"endpoint {self._name!r} answers at {url}")
        return Succeeded(None, {"ready_seconds": time.monotonic() - began})

    def _place(self) -> bool:
        """Wait until the pool has room; return whether it has some beside an earlier revision."""
        told = False
        while (room := placement.probe(self._deployment)) is not Room.FREE:
            asked = placement.asked(self._deployment)
            if room is Room.NEVER:
                line = f"no node of pool {self._pool!r} can ever give {asked}"
                raise _RefusedError(self._failure(line, kind=FailureKind.PLACEMENT))
            if self._replaces_itself():
                return False
            if not told:
                self._messages.put(Waiting(f"pool {self._pool!r} is busy: {asked} are not free"))
            told = True
            self._pause()
        return True

    def _replaces_itself(self) -> bool:
        """Whether an earlier revision on the same pool has the place that this one needs."""
        running = state.instance()
        earlier = running.applications.get(self._name) if running else None
        return earlier is not None and earlier.pool == self._pool

    def _deploy(self, *, surge: bool) -> None:
        if self._cancelled.is_set():
            raise _CancelledError
        made = operations.application(self._deployment, self._fetch, self._clock, surge=surge)
        self._log(f"deploying {self._name!r} on pool {self._pool!r}")
        self._earlier = operations.deploy(self._name, made, self._port)
        self._deployed = True

    def _watch(self) -> None:
        """Wait until all replicas are of this revision, and run."""
        told = False
        wanted = self._deployment.endpoint.replicas
        while True:
            application = self._look()
            mine = [r for r in application.replicas if r.id not in self._earlier]
            placed = tuple(replica.node for replica in mine if replica.node)
            if not told and len(placed) >= wanted:
                self._messages.put(Placed(placed))
                told = True
            mine_run = sum(replica.state == "RUNNING" for replica in mine)
            if application.status == "HEALTHY" and mine_run >= wanted:
                return
            self._pause()

    def _look(self) -> state.Application:
        running = state.instance()
        found = running.applications.get(self._name) if running else None
        if found is None:
            line = f"endpoint {self._name!r} was deleted while it was deployed"
            raise _RefusedError(self._failure(line))
        current = found.revision == self._deployment.key
        if current and (found.error or found.status == "DEPLOY_FAILED"):
            text = found.error or found.message
            raise _RefusedError(self._failure(_last_line(text), detail=text))
        return found

    # --- the end -------------------------------------------------------------------------------

    def _remove(self) -> None:
        """Delete what was deployed, unless an earlier revision still serves."""
        if not self._deployed:
            return
        with suppress(ServingError, *FOREIGN):
            if not self._serves_still():
                operations.remove(self._name)

    def _serves_still(self) -> bool:
        running = state.instance()
        found = running.applications.get(self._name) if running else None
        return found is not None and any(r.id in self._earlier for r in found.running)

    def _failure(
        self, evidence: str, detail: str = "", kind: FailureKind = FailureKind.SERVING
    ) -> Failure:
        return Failure(kind=kind, evidence=evidence, detail=detail, pool=self._pool)

    def _pause(self) -> None:
        if self._cancelled.wait(_POLL_SECONDS):
            raise _CancelledError

    def _log(self, text: str) -> None:
        self._messages.put(LogLine(0, text))


def _last_line(text: str) -> str:
    """Return the line of a traceback that names the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
