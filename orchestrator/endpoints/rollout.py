"""Deploy revisions beside what serves, and move the traffic in steps: the port `Serving`.

Whatever fails, the revision that led before serves all traffic, and the new one goes. Every move
is committed to the store before it is made. Nothing here waits: `Replicas` do the deploying, the
clock ends a step; while the store is away all stays where it is, and is tried again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from orchestrator.core.endpoints.life import (
    WHOLE,
    Deployment,
    EndpointLife,
    OverflowSet,
    RevisionAdded,
    RevisionReady,
    RevisionState,
    ShadowSet,
    SharesMoved,
    TrafficEvent,
)
from orchestrator.core.endpoints.promotion import CanaryStanding, CanaryVerdict, shares
from orchestrator.core.errors import ConflictError, OrchestratorError, ServingError, StoreError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.endpoints.canary import SECONDS_BETWEEN_LOOKS, Canary
from orchestrator.endpoints.progress import RolloutProgress, Target
from orchestrator.endpoints.revisions import EndpointStore, Revisions
from orchestrator.messages import Failed, LogLine, Message, Points, Succeeded
from orchestrator.ports import Clock, Replicas, Traffic

READY = "it is ready, and gets traffic when somebody moves it"
SECONDS_OF_GRACE = 2.0  # until every gateway has seen that a revision gets no traffic any more
LEAST_PAUSE, MOST_PAUSE = 0.5, 15.0  # seconds, while the store is away


class _BackError(Exception):
    """The rollout ends here, and the old revision keeps the traffic; the text says why."""


class Rollouts:
    """Serving by revisions, over `replicas`, which deploys and removes one at a time.

    `home` is the identity of the home whose revisions these are.
    """

    def __init__(
        self,
        replicas: Replicas,
        store: EndpointStore,
        traffic: Traffic,
        clock: Clock,
        home: str = "",
    ) -> None:
        self._replicas, self._store = replicas, store
        self._traffic = traffic
        self._clock = clock
        self._home = home
        self._revisions = Revisions(store, replicas, clock)
        self._rollouts: dict[str, RolloutProgress] = {}

    # --- the port ------------------------------------------------------------------------------

    def start(self, deployment: Deployment) -> None:
        """Take the request; all that follows, a failure too, comes by `poll`."""
        self._rollouts[deployment.key] = RolloutProgress(deployment, self._clock.monotonic())

    def poll(self, key: str) -> Sequence[Message]:
        """Go on with the rollout as far as can be without waiting."""
        rollout = self._rollouts.get(key)
        if rollout is None or self._clock.monotonic() < rollout.wake:
            return ()
        if not rollout.added:
            return self._add(rollout)
        try:
            messages = self._forward(rollout) if rollout.back is None else self._go_back(rollout)
        except StoreError as error:
            return self._rest(rollout, error)
        rollout.pause = 0.0
        if messages and isinstance(messages[-1], Succeeded | Failed):
            del self._rollouts[key]
        return messages

    def cancel(self, key: str) -> None:
        """Give the rollout up: the old revision gets its traffic back, the new one goes.

        One that another process had started, whose controller is gone, is found in the store.

        Raises:
            StoreError: The store is away for long; the run's `resume` finds what is left.
        """
        rollout = self._rollouts.pop(key, None)
        self._replicas.cancel(key)
        if rollout is not None and rollout.added:
            self._revisions.insist(lambda: self._take_back(rollout, "the rollout was cancelled"))
            return
        for deployment in self._revisions.insist(lambda: list(self._revisions.unfinished(key))):
            left = RolloutProgress(deployment, 0.0)
            self._revisions.insist(partial(self._take_back, left, "it was given up"))

    def _forward(self, rollout: RolloutProgress) -> list[Message]:
        try:
            return self._deploying(rollout) if rollout.ready is None else self._moving(rollout)
        except ConflictError:
            return []  # somebody else has moved the traffic: the next look sees it
        except StoreError:
            raise
        except _BackError as error:
            rollout.back = str(error), FailureKind.ROLLED_BACK
        except OrchestratorError as error:
            rollout.back = str(error), FailureKind.SERVING
        return self._go_back(rollout)

    def _rest(self, rollout: RolloutProgress, error: StoreError) -> list[Message]:
        """Let the store alone for a while, longer each time; tell of it the first time."""
        first = not rollout.pause
        rollout.pause = min(max(2.0 * rollout.pause, LEAST_PAUSE), MOST_PAUSE)
        rollout.wake = self._clock.monotonic() + rollout.pause
        name = rollout.deployment.name
        return [LogLine(0, f"the rollout of {name} waits for the store: {error}")] if first else []

    def settle(self) -> None:
        """Wait until the replicas of what was given up are gone."""
        self._replicas.settle()

    def _add(self, rollout: RolloutProgress) -> list[Message]:
        """Add a revision, and ask for its replicas."""
        try:
            deployment = self._added(rollout)
        except ConflictError:
            return []  # somebody else has changed the endpoint at this moment: once more
        except StoreError as error:
            return self._rest(rollout, error)
        except OrchestratorError as error:
            del self._rollouts[rollout.deployment.key]
            failure = Failure(kind=FailureKind.SERVING, evidence=str(error), pool=rollout.pool)
            return [Failed(failure)]
        rollout.deployment, rollout.added, rollout.pause = deployment, True, 0.0
        return []

    def _added(self, rollout: RolloutProgress) -> Deployment:
        """Add a revision, unless the store has it from a try whose answer was lost."""
        life = self._revisions.life(rollout.name)
        for revision in life.live:
            deployment = revision.deployment
            starts = revision.state is RevisionState.STARTING
            if deployment is not None and starts and deployment.key == rollout.deployment.key:
                return deployment
        deployment = replace(
            rollout.deployment,
            revision=life.next_number,
            token=secrets.token_hex(16),
            cluster=self._replicas.cluster(),
            home=self._home,
        )
        self._revisions.commit(life, RevisionAdded(life.next_number, deployment))
        return deployment

    # --- until its replicas are there ----------------------------------------------------------

    def _deploying(self, rollout: RolloutProgress) -> list[Message]:
        if not rollout.begun:
            rollout.begun = True
            self._replicas.start(rollout.deployment)
        messages: list[Message] = []
        if not rollout.deployed and rollout.failed is None:
            messages = list(self._replicas.poll(rollout.deployment.key))
            if not messages or not isinstance(messages[-1], Succeeded | Failed):
                return messages
            last = messages.pop()
            if isinstance(last, Failed):
                rollout.failed = last  # told once: the store may be away now
            rollout.deployed = rollout.failed is None
        if rollout.failed is not None:
            self._revisions.retire(rollout.deployment, rollout.failed.failure.evidence)
            return [*messages, rollout.failed]
        return [*messages, *self._begin(rollout)]

    def _begin(self, rollout: RolloutProgress) -> list[Message]:
        """Commit that its replicas answer; again, where the store was away at the first time."""
        life = self._life(rollout)
        if life.revisions[rollout.number].state is RevisionState.STARTING:
            self._revisions.commit(life, RevisionReady(rollout.number))
        self._revisions.note(rollout.deployment)
        self._begin_anew(rollout, life)
        rollout.ready = rollout.since = self._clock.monotonic()
        seconds = rollout.ready - rollout.began
        return [LogLine(0, f"{rollout.deployment.name} is ready after {seconds:.1f} s")]

    def _life(self, rollout: RolloutProgress) -> EndpointLife:
        """Return the endpoint, in which the revision is there still."""
        life = self._revisions.life(rollout.name)
        revision = life.revisions.get(rollout.number)
        if revision is None or revision.state is RevisionState.RETIRED:
            raise _BackError("somebody has retired it")
        return life

    # --- the steps -----------------------------------------------------------------------------

    def _moving(self, rollout: RolloutProgress) -> list[Message]:
        now = self._clock.monotonic()
        if now - rollout.looked < SECONDS_BETWEEN_LOOKS:
            return []
        rollout.looked = now
        life = self._life(rollout)
        if rollout.target is not None and rollout.target.reached(life):
            rollout.arrive(rollout.target, now)  # the store had it, and could not say so
        share = life.shares.get(rollout.number, 0)
        if share != rollout.share:
            return self._overruled(rollout, life.shares)
        if share and life.shares != rollout.shares:
            self._renew(rollout, life)
        if not share and life.shares != rollout.old:
            self._begin_anew(rollout, life)
        if rollout.step < 0 and not rollout.shadowed:
            return self._first_step(rollout, life)
        if rollout.finishing:
            return self._finish(rollout)
        return self._judge(rollout, life, now) if rollout.old else self._answering(rollout)

    def _begin_anew(self, rollout: RolloutProgress, life: EndpointLife) -> None:
        canary = Canary(self._traffic, self._store, life.leading, rollout.deployment)
        rollout.begin_anew(life, canary)

    def _renew(self, rollout: RolloutProgress, life: EndpointLife) -> None:
        """Go on beside who has the rest of the traffic by now: somebody has moved that."""
        rollout.go_on_beside(life)
        leading = life.revisions[max(rollout.old, key=lambda number: rollout.old[number])]
        canary = Canary(self._traffic, self._store, leading, rollout.deployment)
        why = canary.compare(rollout.deployment.endpoint.rollout)
        if why:
            raise _BackError(why)
        canary.begin()
        rollout.canary, rollout.since = canary, self._clock.monotonic()

    def _judge(self, rollout: RolloutProgress, life: EndpointLife, now: float) -> list[Message]:
        """Judge the new revision, and go on when it has been at this step for long enough."""
        rules, canary = rollout.deployment.endpoint.rollout, _canary(rollout)
        canary.probe(rules)
        verdict = canary.verdict(rules)
        if verdict.standing is CanaryStanding.WORSE:
            raise _BackError(f"at {rollout.share} %: {verdict.reason}")
        last = rollout.step == len(rules.steps) - 1
        if now - rollout.since < max(rules.hold, SECONDS_OF_GRACE if last else 0.0):
            return []
        if not rules.steps:
            return self._done(rollout, READY)
        if verdict.standing is CanaryStanding.UNSURE and not canary.alone:
            return self._doubt(rollout, life, verdict)
        if rollout.doubted is not None:  # no more: it gets the share of its step again
            return self._next_step(rollout, life, max(rollout.step, 0))
        if last:
            return self._finish(rollout)
        step = len(rules.steps) - 1 if canary.alone else rollout.step + 1
        return self._next_step(rollout, life, step)

    def _doubt(
        self, rollout: RolloutProgress, life: EndpointLife, verdict: CanaryVerdict
    ) -> list[Message]:
        """Wait for a verdict: on copies, which harm nobody, where figures speak against it."""
        now = self._clock.monotonic()
        since = rollout.since if rollout.doubted is None else rollout.doubted
        rules = rollout.deployment.endpoint.rollout
        if now - since > rules.hold + rules.doubt:
            why = f"no verdict after {now - since:.0f} s: {verdict.reason}"
            raise _BackError(f"at {rollout.share} %: {why}")
        if not verdict.doubtful or rollout.doubted is not None or not rollout.share:
            return []
        reason = f"copies alone: {verdict.reason}"
        shadow = ShadowSet(rollout.number, reason)
        target = Target(shares=rollout.old, reason=reason, step=rollout.step, doubted=now)
        return self._move(rollout, life, target, shadow)

    def _first_step(self, rollout: RolloutProgress, life: EndpointLife) -> list[Message]:
        new = rollout.awaited is None
        if rollout.awaits(life, self._clock.monotonic()):
            waits = f"{rollout.deployment.name} waits for the rollout of r{life.rollout}"
            return [LogLine(0, waits)] if new else []
        rules = rollout.deployment.endpoint.rollout
        if not rollout.old:
            whole = {rollout.number: WHOLE}
            first = Target(shares=whole, reason="the first revision", step=0)
            return self._move(rollout, life, first)
        canary = _canary(rollout)
        why = canary.compare(rules)
        if why:
            raise _BackError(why)
        if rules.overflow:
            return self._join(rollout, life)
        if rules.shadow and not canary.alone:
            return self._shadow(rollout, life)
        if rules.steps:  # where nobody serves, all traffic at once
            return self._next_step(rollout, life, len(rules.steps) - 1 if canary.alone else 0)
        return self._done(rollout, READY)

    def _join(self, rollout: RolloutProgress, life: EndpointLife) -> list[Message]:
        """Have it take what finds no room at the others."""
        price = rollout.deployment.price
        at = "" if price is None else f", ${price:,.2f} an hour"
        reason = f"overflow to r{rollout.number} on {rollout.pool}{at}"
        moved = self._move(rollout, life, None, OverflowSet(rollout.number, reason))
        return [*moved, *self._done(rollout, f"it takes what finds no room elsewhere{at}")]

    def _shadow(self, rollout: RolloutProgress, life: EndpointLife) -> list[Message]:
        """Send it copies for one hold, before it gets any traffic."""
        _canary(rollout).begin()
        messages = self._move(rollout, life, None, ShadowSet(rollout.number, "shadow"))
        rollout.shadowed, rollout.since = True, self._clock.monotonic()
        return messages

    def _next_step(self, rollout: RolloutProgress, life: EndpointLife, step: int) -> list[Message]:
        """Give it the share of a step; nothing changes where that can't be committed."""
        share = rollout.deployment.endpoint.rollout.steps[step]
        wanted = shares(share, rollout.number, rollout.old)
        _canary(rollout).begin()
        reason = f"rollout of r{rollout.number} on {rollout.pool}"
        return self._move(rollout, life, Target(shares=wanted, reason=reason, step=step))

    def _move(
        self,
        rollout: RolloutProgress,
        life: EndpointLife,
        target: Target | None,
        *more: TrafficEvent,
    ) -> list[Message]:
        """Commit a move that was decided when the endpoint was `life`."""
        rollout.target = target
        moved = (SharesMoved(target.shares, target.reason, rollout.number),) if target else ()
        self._revisions.commit(life, *moved, *more)
        if target:
            rollout.arrive(target, self._clock.monotonic())
        wanted = target.shares if target else life.shares
        text = ", ".join(f"r{number} {share} %" for number, share in sorted(wanted.items()))
        share = {"rollout/share": float(wanted.get(rollout.number, 0))}
        point = Points(max(rollout.step, 0) + 1, share, self._clock.now())
        return [LogLine(0, f"traffic of {rollout.name!r}: {text}"), point]

    def _answering(self, rollout: RolloutProgress) -> list[Message]:
        """Wait until the first revision answers through the gateway."""
        if self._traffic.answers(rollout.name):
            return self._done(rollout, "it answers")
        seconds = rollout.deployment.endpoint.rollout.answer
        if self._clock.monotonic() - rollout.since > seconds:
            message = f"endpoint {rollout.name!r} does not answer within {seconds:g} s"
            raise ServingError(message)
        return []

    def _finish(self, rollout: RolloutProgress) -> list[Message]:
        rollout.finishing = True  # whatever is counted from now on, the others are going
        reason = f"replaced by r{rollout.number}"
        for number in rollout.old:
            self._revisions.retire_unused(rollout.name, number, reason)
        return self._done(rollout, "it took over")

    def _done(self, rollout: RolloutProgress, what: str) -> list[Message]:
        ready, now = rollout.ready or 0.0, self._clock.monotonic()
        figures = rollout.canary.figures() if rollout.canary else {}
        metrics = {
            "ready_seconds": ready - rollout.began,
            "rollout_seconds": now - ready,
            "revision": float(rollout.number),
            **figures,
        }
        text = f"{rollout.deployment.name} on {rollout.pool}: {what}"
        return [LogLine(0, text), Succeeded(None, metrics)]

    # --- back ----------------------------------------------------------------------------------

    def _overruled(self, rollout: RolloutProgress, now: Mapping[int, int]) -> list[Message]:
        """End the rollout where somebody has moved the traffic meanwhile: as they set it."""
        if not now.get(rollout.number):
            raise _BackError("somebody took its traffic away")
        return self._done(rollout, "somebody moved the traffic, which stays so")

    def _go_back(self, rollout: RolloutProgress) -> list[Message]:
        assert rollout.back is not None, "it is on its way back"  # noqa: S101
        why, kind = rollout.back
        return [Failed(self._take_back(rollout, why, kind))]

    def _take_back(
        self, rollout: RolloutProgress, why: str, kind: FailureKind = FailureKind.ROLLED_BACK
    ) -> Failure:
        """Give the traffic back to what led before, and remove the new revision."""
        gone = self._revisions.take_back(rollout.deployment, rollout.old, why)
        live = {revision.number for revision in self._revisions.life(rollout.name).live}
        serves = ", ".join(f"r{number}" for number in rollout.old if number in live)
        rest = f"; {serves} serves on" if serves else ""
        if not gone:
            rest = "; nobody else is ready, and so it serves on"
        evidence = f"{rollout.deployment.name}: {why}{rest}"
        return Failure(kind=kind, evidence=evidence, pool=rollout.pool)


def _canary(rollout: RolloutProgress) -> Canary:
    assert rollout.canary is not None, "it watches since it is ready"  # noqa: S101
    return rollout.canary
