"""How a new revision takes over: the steps of its share, and when it is sent back.

Figures of the new revision are compared with those of the old one over the same time, so that a
slow hour of the day is nobody's fault. No evidence is no promotion: a verdict is *worse*, *equal*
or *unsure*, and only the second one lets a rollout go on. Decisions are values;
`endpoints/rollout.py` carries them out.

Failures are compared by a Bayes factor that may be looked at after every request. With k of n
requests of each revision without success, and rates that are uniform beforehand, it is

    B(k1 + 1, n1 - k1 + 1) B(k0 + 1, n0 - k0 + 1) / B(k0 + k1 + 1, n0 + n1 - k0 - k1 + 1)

that is, how much likelier the counts are by two rates than by one (B is the beta function;
Jeffreys, Theory of Probability, 1961, section 5.1, and Good, 1967). By Ville's inequality a factor
that is 1 on average exceeds `certainty` at any time with a probability of 1 / `certainty` at most,
so that looking often costs nothing (Robbins, 1970). Three failures of three beside twenty
successes come to 500.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.endpoints.life import WHOLE
from orchestrator.core.spec.policy import Rollout

DOUBTFUL = 3.0  # a Bayes factor from which it may be worse: Jeffreys' "substantial"
NO_SUCCESS = 3  # requests without any success, after which there is nothing to wait for
LEAST_TIMES = 20.0  # of each revision, however few requests its rules want
NOISE, NOISE_OF_A_TOKEN = 0.02, 0.002  # seconds: less is what a busy host does by itself
SAMPLES_OF_A_TAIL = 100.0  # requests from which the slowest twentieth says something
_CLIENT_LEFT = 499
_FAILED = 500
_MEDIAN, _TAIL = 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Times:
    """A histogram of times in seconds: how many took at most so long, by that bound, ascending."""

    count: float = 0.0
    sum: float = 0.0
    buckets: tuple[tuple[float, float], ...] = ()

    def since(self, earlier: Times) -> Times:
        """Return what came after `earlier`."""
        before = dict(earlier.buckets)
        left = tuple((bound, count - before.get(bound, 0.0)) for bound, count in self.buckets)
        return Times(self.count - earlier.count, self.sum - earlier.sum, left)

    def plus(self, other: Times) -> Times:
        """Return both together; their bounds are the same where both have some."""
        if not self.count or not other.count:
            return self if self.count else other
        theirs = dict(other.buckets)
        both = tuple((bound, count + theirs.get(bound, 0.0)) for bound, count in self.buckets)
        return Times(self.count + other.count, self.sum + other.sum, both)

    @property
    def mean(self) -> float:
        """Mean time; 0 without any."""
        return self.sum / self.count if self.count else 0.0

    def bucket(self, share: float) -> tuple[float, float]:
        """Return the bounds between which the time lies that a `share` of all did not exceed."""
        wanted, low = share * self.count, 0.0
        for bound, count in self.buckets:
            if count >= wanted:
                return low, bound
            low = bound
        return low, math.inf

    def quantile(self, share: float) -> float:
        """Return the time that a `share` of all did not exceed, in its bucket by proportion."""
        low, high = self.bucket(share)
        if not self.count or math.isinf(high):
            return low
        counts = {0.0: 0.0, **dict(self.buckets)}
        inside = counts[high] - counts[low]
        return low + (high - low) * (share * self.count - counts[low]) / inside if inside else high


NO_TIMES = Times()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficFigures:
    """What was counted of a revision: sums since the counting began.

    `requests` are all that it was given, `errors` those that its replicas failed at, `statuses`
    the others by HTTP status. `first`, `each` and `whole` are the times to the first token, per
    further token, and of whole answers.
    """

    requests: float = 0.0
    errors: float = 0.0
    statuses: Mapping[int, float] = field(default_factory=dict)
    first: Times = NO_TIMES
    each: Times = NO_TIMES
    whole: Times = NO_TIMES

    def since(self, earlier: TrafficFigures) -> TrafficFigures:
        """Return what was counted after `earlier`; a gateway that began anew counts from 0."""
        if self.requests < earlier.requests:
            return self
        return TrafficFigures(
            requests=self.requests - earlier.requests,
            errors=self.errors - earlier.errors,
            statuses={s: n - earlier.statuses.get(s, 0.0) for s, n in self.statuses.items()},
            first=self.first.since(earlier.first),
            each=self.each.since(earlier.each),
            whole=self.whole.since(earlier.whole),
        )

    def plus(self, other: TrafficFigures) -> TrafficFigures:
        """Return both together."""
        statuses = self.statuses.keys() | other.statuses.keys()
        return TrafficFigures(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            statuses={s: self.statuses.get(s, 0.0) + other.statuses.get(s, 0.0) for s in statuses},
            first=self.first.plus(other.first),
            each=self.each.plus(other.each),
            whole=self.whole.plus(other.whole),
        )

    @property
    def refusals(self) -> Mapping[int, float]:
        """Answers by a status of 400 to 499, but for clients that have left."""
        refused = range(400, _FAILED)
        return {s: n for s, n in self.statuses.items() if s in refused and s != _CLIENT_LEFT and n}

    @property
    def failures(self) -> float:
        """Requests that its replicas failed at, by an error or by a status from 500."""
        return self.errors + sum(n for s, n in self.statuses.items() if s >= _FAILED)

    @property
    def unsuccessful(self) -> float:
        """Requests that failed or were refused."""
        return self.failures + sum(self.refusals.values())

    @property
    def error_rate(self) -> float:
        """Requests without success, as a share of all."""
        return self.unsuccessful / self.requests if self.requests else 0.0

    @property
    def to_first(self) -> float:
        """Mean time to the first token, seconds."""
        return self.first.mean

    @property
    def per_token(self) -> float:
        """Mean time per further token, seconds."""
        return self.each.mean


NOTHING = TrafficFigures()


class CanaryStanding(StrEnum):
    """How a new revision stands beside the old one."""

    WORSE = "worse"
    UNSURE = "unsure"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """A standing and its reason. `doubtful`: what was counted speaks against the new revision."""

    standing: CanaryStanding
    reason: str = ""
    doubtful: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionEvidence:
    """What is known of a revision: the requests of clients, and the rollout's own probes.

    `traffic` counts since its rollout began, `step` since the share changed last, `probes` since
    then too.
    """

    traffic: TrafficFigures = NOTHING
    step: TrafficFigures = NOTHING
    probes: TrafficFigures = NOTHING

    @property
    def all(self) -> TrafficFigures:
        """Requests of clients and probes together."""
        return self.traffic.plus(self.probes)


def judge(rules: Rollout, old: RevisionEvidence, new: RevisionEvidence) -> CanaryVerdict:
    """Return how the new revision stands. Both were counted over one time."""
    worse = _fails_more(rules, old, new) or _slower(rules, old, new)
    if worse:
        return CanaryVerdict(CanaryStanding.WORSE, worse)
    counted = new.step.requests + new.probes.requests
    if counted < rules.requests:
        reason = f"{counted:.0f} of the {rules.requests} requests that a verdict takes"
        return CanaryVerdict(CanaryStanding.UNSURE, reason)
    if not new.all.requests - new.all.unsuccessful:
        return CanaryVerdict(
            CanaryStanding.UNSURE, "it has answered nothing so far", doubtful=True
        )
    if _excess(old.all, new.all) > rules.error_rate or (
        _excess(old.traffic, new.traffic) > rules.error_rate
        and bayes_factor(old.traffic, new.traffic) >= DOUBTFUL
    ):
        return CanaryVerdict(CanaryStanding.UNSURE, _compared(old.all, new.all), doubtful=True)
    return CanaryVerdict(CanaryStanding.EQUAL)


def bayes_factor(old: TrafficFigures, new: TrafficFigures, status: int | None = None) -> float:
    """Return how much likelier the counts are by two rates than by one.

    What is compared are requests without success, or refusals by one `status`.
    """
    new_bad, old_bad = _bad(new, status), _bad(old, status)
    new_good, old_good = new.requests - new_bad, old.requests - old_bad
    exponent = (
        _log_beta(new_bad, new_good)
        + _log_beta(old_bad, old_good)
        - _log_beta(new_bad + old_bad, new_good + old_good)
    )
    return math.exp(min(exponent, 700.0))


def _log_beta(bad: float, good: float) -> float:
    """Return the logarithm of B(bad + 1, good + 1); counters of a gateway may lag: none < 0."""
    bad, good = max(bad, 0.0) + 1.0, max(good, 0.0) + 1.0
    return math.lgamma(bad) + math.lgamma(good) - math.lgamma(bad + good)


def _bad(figures: TrafficFigures, status: int | None) -> float:
    return figures.unsuccessful if status is None else figures.refusals.get(status, 0.0)


def _excess(old: TrafficFigures, new: TrafficFigures, status: int | None = None) -> float:
    """Return by how much the new revision's rate is above the old one's."""
    return _rate(new, status) - _rate(old, status)


def _rate(figures: TrafficFigures, status: int | None) -> float:
    return _bad(figures, status) / figures.requests if figures.requests else 0.0


def _fails_more(rules: Rollout, old: RevisionEvidence, new: RevisionEvidence) -> str:
    """Return why it is certain that the new revision fails more, or nothing."""
    known = new.all
    if known.requests >= NO_SUCCESS and known.unsuccessful >= known.requests:
        if new.probes.requests and not (old.probes.requests and old.all.unsuccessful):
            return _compared(old.all, known)
        if known.requests >= max(NO_SUCCESS, rules.requests):
            return _compared(old.all, known)
    statuses: tuple[int | None, ...] = (None, *known.refusals)
    for theirs, ours in ((old.traffic, new.traffic), (old.all, known)):
        for status in statuses:
            if _excess(theirs, ours, status) <= rules.error_rate:
                continue
            if bayes_factor(theirs, ours, status) >= rules.certainty:
                return _compared(theirs, ours, status)
    return ""


def _compared(old: TrafficFigures, new: TrafficFigures, status: int | None = None) -> str:
    what = "failed" if status is None else f"were answered by {status}"
    if status is None and new.unsuccessful > new.failures:
        worst = max(new.refusals, key=lambda code: new.refusals[code])
        what = f"failed or were refused (most by {worst})"
    new_rate, old_rate = (
        _bad(figures, status) / figures.requests if figures.requests else 0.0
        for figures in (new, old)
    )
    return (
        f"{new_rate:.1%} of {new.requests:.0f} requests {what}, {old_rate:.1%} at the old revision"
    )


def _slower(rules: Rollout, old: RevisionEvidence, new: RevisionEvidence) -> str:
    """Return why it is certain that the new revision is slower, or nothing.

    Clients are compared with clients, and where those are few, probes with probes.
    """
    enough = min(old.step.requests, new.step.requests) >= rules.requests
    theirs, ours = (old.step, new.step) if enough else (old.probes, new.probes)
    for what, before, now, noise in (
        ("time to the first token", theirs.first, ours.first, NOISE),
        ("time per token", theirs.each, ours.each, NOISE_OF_A_TOKEN),
        ("time of an answer", theirs.whole, ours.whole, NOISE),
    ):
        slow = slower(rules, before, now, noise)
        if slow:
            return f"{what} is {slow} at the old revision"
    return ""


def slower(rules: Rollout, old: Times, new: Times, noise: float = NOISE) -> str:
    """Return "NEW, OLD" where the new times are more than `rules.slower` times as long.

    Mean and median must both be longer, for one answer that took long is no verdict, and by more
    than `noise` seconds. Quantiles are known to a bucket: they differ where a whole bucket lies
    between them.
    """
    if min(old.count, new.count) < max(rules.requests, LEAST_TIMES):
        return ""
    means = new.mean > old.mean * rules.slower > 0.0 and new.mean - old.mean > noise
    if means and new.quantile(_MEDIAN) >= old.quantile(_MEDIAN):
        return f"{new.mean * 1e3:.1f} ms in the mean, {old.mean * 1e3:.1f} ms"
    tail = min(old.count, new.count) >= SAMPLES_OF_A_TAIL
    for share in (_MEDIAN, _TAIL) if tail else (_MEDIAN,):
        before, now = old.quantile(share), new.quantile(share)
        apart = new.bucket(share)[0] >= old.bucket(share)[1]
        if apart and now > before * rules.slower and now - before > noise:
            return f"{now * 1e3:.0f} ms at {share:.0%}, {before * 1e3:.0f} ms"
    return ""


def times_of(seconds: float) -> Times:
    """Return the histogram of one time, in buckets each a quarter wider than the one before."""
    bounds = [0.001 * 1.25**n for n in range(64)]  # to twenty minutes
    return Times(1.0, seconds, tuple((bound, float(seconds <= bound)) for bound in bounds))


def shares(step: int, new: int, old: Mapping[int, int]) -> Mapping[int, int]:
    """Return the shares at a step of `step` percent for revision `new`; `old` keep the rest."""
    rest = WHOLE - step
    total = sum(old.values())
    if not rest or not total:
        return {new: WHOLE}
    left = {number: rest * share // total for number, share in old.items()}
    first = max(left, key=lambda number: left[number])
    left[first] += rest - sum(left.values())
    return {**{number: share for number, share in left.items() if share}, new: step}
