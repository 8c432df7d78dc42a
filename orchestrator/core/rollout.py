"""How a new revision takes over: the steps of its share, and when it is sent back.

Figures of the new revision are compared with those of the old one over the same time, so that a
slow hour of the day is nobody's fault. Decisions are values; `endpoints/rollout.py` carries them
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.endpoints import WHOLE
from orchestrator.core.policy import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the gateway has counted of a revision: sums since it began, times in seconds.

    `first` and `each` are the sums of times to the first token and per further token, over
    `firsts` and `eachs` requests.
    """

    requests: float = 0.0
    errors: float = 0.0
    first: float = 0.0
    firsts: float = 0.0
    each: float = 0.0
    eachs: float = 0.0

    def since(self, earlier: Figures) -> Figures:
        """Return what was counted after `earlier`; a gateway that began anew counts from 0."""
        if self.requests < earlier.requests:
            return self
        return Figures(
            requests=self.requests - earlier.requests,
            errors=self.errors - earlier.errors,
            first=self.first - earlier.first,
            firsts=self.firsts - earlier.firsts,
            each=self.each - earlier.each,
            eachs=self.eachs - earlier.eachs,
        )

    @property
    def error_rate(self) -> float:
        """Failed requests, as a share of all."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def to_first(self) -> float:
        """Mean time to the first token, seconds."""
        return self.first / self.firsts if self.firsts else 0.0

    @property
    def per_token(self) -> float:
        """Mean time per further token, seconds."""
        return self.each / self.eachs if self.eachs else 0.0


NOTHING = Figures()


def judge(rules: Rollout, old: Figures, new: Figures) -> str:
    """Return why the new revision must go back, or nothing. Both were counted over one time.

    It isn't judged by fewer requests than `rules.requests`.
    """
    if new.requests < rules.requests:
        return ""
    if new.error_rate > old.error_rate + rules.error_rate:
        return (
            f"{new.error_rate:.1%} of {new.requests:.0f} requests failed, "
            f"{old.error_rate:.1%} at the old revision"
        )
    if old.requests < rules.requests:
        return ""  # there is nothing to compare times with
    for what, theirs, ours in (
        ("time to the first token", old.to_first, new.to_first),
        ("time per token", old.per_token, new.per_token),
    ):
        if theirs and ours > theirs * rules.slower:
            return f"{what} is {ours * 1e3:.1f} ms, {theirs * 1e3:.1f} ms at the old revision"
    return ""


def disagreement(rules: Rollout, old: Sequence[str], new: Sequence[str]) -> str:
    """Return why the answers to the probes differ too much, or nothing."""
    equal = sum(one == other for one, other in zip(old, new, strict=True))
    if not old or equal >= rules.agreement * len(old):
        return ""
    worst = next(n for n, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
    return (
        f"{equal} of {len(old)} probes are answered alike, {rules.agreement:.0%} are wanted; "
        f"{new[worst][:40]!r} for {old[worst][:40]!r}"
    )


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
