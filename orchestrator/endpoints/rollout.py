"""Deploy revisions beside what serves, and move the traffic in steps: the port `Serving`.

Whatever fails, the revision that led before serves all traffic, and the new one goes. Every move
is committed to the store before anything is done about it. It works whenever it is polled and
waits for nothing: `Replicas` do the deploying, the clock tells when a step is over.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.endpoints import (
    WHOLE,
    Deployment,
    RevisionAdded,
    RevisionReady,
    TrafficMoved,
)
from orchestrator.core.errors import ConflictError, OrchestratorError, ServingError
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.core.rollout import Standing, Verdict, shares
from orchestrator.endpoints.canary import SECONDS_BETWEEN_LOOKS, Canary
from orchestrator.endpoints.revisions import Revisions
from orchestrator.messages import Failed, LogLine, Message, Points, Succeeded
from orchestrator.ports import Clock, EndpointStore, Replicas, Traffic

SECONDS_TO_ANSWER = 60.0
READY = "it is ready, and gets traffic when somebody moves it"
SECONDS_OF_DOUBT = 600.0  # without a verdict, until the old revision has it all again
SECONDS_OF_GRACE = 2.0  # until every gateway has seen that a revision gets no traffic any more


class _BackError(Exception):
    """The rollout ends here, and the old revision keeps the traffic; the text says why."""


@dataclass(slots=True)
class _Rollout:
    """A revision on its way; `step` counts its steps, -1 before the first.

    `doubted` is since when it gets copies alone, because its figures at a step were in doubt.
    """

    made: Deployment
    began: float
    added: bool = False
    asked: bool = False
    ready: float | None = None
    old: Mapping[int, int] | None = None
    step: int = -1
    since: float = 0.0
    looked: float = -math.inf
    shadowed: bool = False
    canary: Canary | None = None
    doubted: float | None = None

    @property
    def name(self) -> str:
        return self.made.endpoint.name

    @property
    def number(self) -> int:
        return self.made.revision


class Rollouts:
    """Serving by revisions, over `replicas`, which deploys and removes one at a time."""

    def __init__(
        self, replicas: Replicas, store: EndpointStore, traffic: Traffic, clock: Clock
    ) -> None:
        self._replicas, self._store = replicas, store
        self._traffic = traffic
        self._clock = clock
        self._revisions = Revisions(store, replicas, clock)
        self._rollouts: dict[str, _Rollout] = {}

    # --- the port ------------------------------------------------------------------------------

    def start(self, deployment: Deployment) -> None:
        """Take the request; all that follows, a failure too, comes by `poll`."""
        self._rollouts[deployment.key] = _Rollout(deployment, self._clock.monotonic())

    def poll(self, key: str) -> Sequence[Message]:
        """Go on with the rollout as far as can be without waiting."""
        rollout = self._rollouts.get(key)
        if rollout is None:
            return ()
        if not rollout.added:
            return self._add(rollout)
        try:
            said = self._deploying(rollout) if rollout.ready is None else self._moving(rollout)
        except ConflictError:
            said = []  # somebody else has moved the traffic: the next look sees it
        except _BackError as error:
            said = [Failed(self._take_back(rollout, str(error)))]
        except OrchestratorError as error:
            said = [Failed(self._take_back(rollout, str(error), FailureKind.SERVING))]
        if said and isinstance(said[-1], Succeeded | Failed):
            del self._rollouts[key]
        return said

    def cancel(self, key: str) -> None:
        """Give the rollout up: the old revision gets its traffic back, the new one goes.

        One that another process had started, whose controller is gone, is found in the store.
        """
        rollout = self._rollouts.pop(key, None)
        self._replicas.cancel(key)
        if rollout is not None:
            if rollout.added:
                self._take_back(rollout, "the rollout was cancelled")
            return
        for made in self._revisions.unfinished(key):
            self._take_back(_Rollout(made, 0.0, added=True), "its rollout was given up")

    def _add(self, rollout: _Rollout) -> list[Message]:
        """Add a revision, and ask for its replicas."""
        try:
            life = self._revisions.present(rollout.name)
            number = life.next_number
            made = replace(rollout.made, revision=number, token=secrets.token_hex(16))
            self._revisions.commit(life, RevisionAdded(number, made))
        except ConflictError:
            return []  # somebody else has changed the endpoint at this moment: once more
        except OrchestratorError as error:
            del self._rollouts[rollout.made.key]
            pool = rollout.made.pool.name
            return [Failed(Failure(kind=FailureKind.SERVING, evidence=str(error), pool=pool))]
        rollout.made, rollout.added = made, True
        return []

    # --- until its replicas are there ----------------------------------------------------------

    def _deploying(self, rollout: _Rollout) -> list[Message]:
        if not rollout.asked:
            rollout.asked = True
            self._replicas.start(rollout.made)
        said = list(self._replicas.poll(rollout.made.key))
        if not said or not isinstance(said[-1], Succeeded | Failed):
            return said
        last = said.pop()
        if isinstance(last, Failed):
            self._revisions.retire(rollout.made, last.failure.evidence)
            return [*said, last]
        rollout.ready = rollout.since = self._clock.monotonic()
        life = self._revisions.life(rollout.name)
        rollout.old = dict(life.shares)
        self._revisions.commit(life, RevisionReady(rollout.number))
        self._revisions.note(rollout.made)
        rollout.canary = Canary(self._traffic, self._store, life.leading, rollout.made)
        seconds = rollout.ready - rollout.began
        return [*said, LogLine(0, f"{rollout.made.application} is ready after {seconds:.1f} s")]

    # --- the steps -----------------------------------------------------------------------------

    def _moving(self, rollout: _Rollout) -> list[Message]:
        if rollout.step < 0 and not rollout.shadowed:
            return self._first_step(rollout)
        now = self._clock.monotonic()
        if now - rollout.looked < SECONDS_BETWEEN_LOOKS:
            return []
        rollout.looked = now
        shares_now = self._revisions.life(rollout.name).shares
        if shares_now.get(rollout.number, 0) != self._share(rollout):
            return self._overruled(rollout, shares_now)
        return self._held(rollout, now) if rollout.old else self._answering(rollout)

    def _held(self, rollout: _Rollout, now: float) -> list[Message]:
        """Judge the new revision, and go on when it has been at this step for long enough."""
        rules, canary = rollout.made.endpoint.rollout, rollout.canary
        assert canary is not None, "it watches since it is ready"  # noqa: S101
        canary.probe(rules)
        verdict = canary.verdict(rules)
        if verdict.standing is Standing.WORSE:
            raise _BackError(f"at {self._share(rollout)} %: {verdict.reason}")
        last = rollout.step == len(rules.steps) - 1
        if now - rollout.since < max(rules.hold, SECONDS_OF_GRACE if last else 0.0):
            return []
        if not rules.steps:
            return self._done(rollout, READY)
        if verdict.standing is Standing.UNSURE and not canary.alone:
            return self._doubt(rollout, verdict, now)
        if rollout.doubted is not None:
            return self._resume(rollout)
        return self._finish(rollout) if last else self._next_step(rollout)

    def _doubt(self, rollout: _Rollout, verdict: Verdict, now: float) -> list[Message]:
        """Wait for a verdict: on copies, which harm nobody, where figures speak against it."""
        since = rollout.since if rollout.doubted is None else rollout.doubted
        if now - since > rollout.made.endpoint.rollout.hold + SECONDS_OF_DOUBT:
            share = self._share(rollout)
            raise _BackError(
                f"at {share} %: no verdict after {now - since:.0f} s: {verdict.reason}"
            )
        if not verdict.doubtful or rollout.doubted is not None or not self._share(rollout):
            return []
        rollout.doubted = now
        reason = f"copies alone: {verdict.reason}"
        return self._move(rollout, rollout.old or {}, reason, shadow=rollout.number)

    def _resume(self, rollout: _Rollout) -> list[Message]:
        """Give it the share of its step again: the doubt is gone."""
        rollout.doubted = None
        return self._step(rollout, f"r{rollout.number} answers as the old revision does")

    def _first_step(self, rollout: _Rollout) -> list[Message]:
        rules = rollout.made.endpoint.rollout
        if not rollout.old:
            rollout.step, rollout.since = 0, self._clock.monotonic()
            return self._move(rollout, {rollout.number: WHOLE}, "the first revision")
        assert rollout.canary is not None, "it watches since it is ready"  # noqa: S101
        why = rollout.canary.compare(rules)
        if why:
            raise _BackError(why)
        if rules.overflow:
            return self._join(rollout)
        if rules.shadow and not rollout.shadowed and not rollout.canary.alone:
            return self._shadow(rollout)
        if rules.steps and rollout.canary.alone:
            rollout.step = len(rules.steps) - 2  # nobody serves: all traffic at once
        if rules.steps:
            return self._next_step(rollout)
        return self._done(rollout, READY)

    def _join(self, rollout: _Rollout) -> list[Message]:
        """Have it take what finds no room at the others."""
        price = rollout.made.price
        at = "" if price is None else f", ${price:,.2f} an hour"
        reason = f"overflow to r{rollout.number} on {rollout.made.pool.name}{at}"
        moved = self._move(rollout, rollout.old or {}, reason, overflow=rollout.number)
        return [*moved, *self._done(rollout, f"it takes what finds no room elsewhere{at}")]

    def _shadow(self, rollout: _Rollout) -> list[Message]:
        """Send it copies for one hold, before it gets any traffic."""
        rollout.shadowed = True
        rollout.since = self._clock.monotonic()
        assert rollout.canary is not None, "it watches since it is ready"  # noqa: S101
        rollout.canary.begin()
        return self._move(rollout, rollout.old or {}, "shadow", shadow=rollout.number)

    def _next_step(self, rollout: _Rollout) -> list[Message]:
        rollout.step += 1
        return self._step(rollout, f"rollout of r{rollout.number} on {rollout.made.pool.name}")

    def _step(self, rollout: _Rollout, reason: str) -> list[Message]:
        rollout.since = self._clock.monotonic()
        wanted = shares(self._share(rollout), rollout.number, rollout.old or {})
        assert rollout.canary is not None, "it watches since it is ready"  # noqa: S101
        rollout.canary.begin()
        return self._move(rollout, wanted, reason)

    def _move(
        self,
        rollout: _Rollout,
        wanted: Mapping[int, int],
        reason: str,
        *,
        shadow: int | None = None,
        overflow: int | None = None,
    ) -> list[Message]:
        life = self._revisions.life(rollout.name)
        overflow = life.overflow if overflow is None else overflow
        self._revisions.commit(life, TrafficMoved(wanted, reason, shadow, overflow))
        text = ", ".join(f"r{number} {share} %" for number, share in sorted(wanted.items()))
        share = {"rollout/share": float(wanted.get(rollout.number, 0))}
        point = Points(rollout.step, share, self._clock.now())
        return [LogLine(0, f"traffic of {rollout.name!r}: {text}"), point]

    def _answering(self, rollout: _Rollout) -> list[Message]:
        """Wait until the first revision answers through the gateway."""
        if self._traffic.answers(rollout.name):
            return self._done(rollout, "it answers")
        if self._clock.monotonic() - rollout.since > SECONDS_TO_ANSWER:
            message = f"endpoint {rollout.name!r} does not answer within {SECONDS_TO_ANSWER:g} s"
            raise ServingError(message)
        return []

    def _finish(self, rollout: _Rollout) -> list[Message]:
        reason = f"replaced by r{rollout.number}"
        for number in rollout.old or ():
            self._revisions.retire_number(rollout.name, number, reason)
        return self._done(rollout, "it took over")

    def _done(self, rollout: _Rollout, what: str) -> list[Message]:
        ready, now = rollout.ready or 0.0, self._clock.monotonic()
        figures = rollout.canary.figures() if rollout.canary else {}
        metrics = {
            "ready_seconds": ready - rollout.began,
            "rollout_seconds": now - ready,
            "revision": float(rollout.number),
            **figures,
        }
        text = f"{rollout.made.application} on {rollout.made.pool.name}: {what}"
        return [LogLine(0, text), Succeeded(None, metrics)]

    # --- back ----------------------------------------------------------------------------------

    def _overruled(self, rollout: _Rollout, now: Mapping[int, int]) -> list[Message]:
        """End the rollout where somebody has moved the traffic meanwhile: as they set it."""
        if not now.get(rollout.number):
            raise _BackError("somebody took its traffic away")
        return self._done(rollout, "somebody moved the traffic, which stays so")

    def _share(self, rollout: _Rollout) -> int:
        steps = rollout.made.endpoint.rollout.steps
        if not rollout.old:
            return WHOLE
        return steps[rollout.step] if rollout.step >= 0 and rollout.doubted is None else 0

    def _take_back(
        self, rollout: _Rollout, why: str, kind: FailureKind = FailureKind.ROLLED_BACK
    ) -> Failure:
        """Give the traffic back to what led before, and remove the new revision."""
        self._revisions.take_back(rollout.made, rollout.old or {}, why)
        serves = ", ".join(f"r{number}" for number in rollout.old or ())
        rest = f"; {serves} serves on" if serves else ""
        evidence = f"{rollout.made.application}: {why}{rest}"
        return Failure(kind=kind, evidence=evidence, pool=rollout.made.pool.name)
