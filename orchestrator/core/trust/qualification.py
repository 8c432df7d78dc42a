"""Whether a pool has earned a role: what was found on it, the verdict, and what follows from it.

A verdict is of one pool as it was configured then (`identity`), and of the nodes that were
measured, for one role, and holds for a time. A pool that was refused is used by no plan and by no
fallback; one without a verdict is used unless `Rules` ask for one, and then by those nodes alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from orchestrator.core.errors import Problem
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.plan import Plan, PlannedStage

DAY = 86_400.0
NOBODY: Mapping[str, Mapping[str, str]] = MappingProxyType({})
# Roles that a pool must earn; what prepares data needs no chip.
EARNED = (Role.TRAIN, Role.SERVE)
# Of a chip: what says nothing of what it can do; its variables are among the pool's.
_OF_ITS_USE = (
    "identity",
    "price_per_hour",
    "roles",
    "source",
    "interface_variable",
    "timeout_variable",
    "joining_variable",
    "joining_seconds",
    "env",
    "secrets",
)


class Standing(StrEnum):
    """What a pool may do in a role."""

    QUALIFIED = "qualified"
    LIMITED = "qualified with limits"
    REFUSED = "refused"


class Status(StrEnum):
    """How a single check ended."""

    PASSED = "passed"
    SKIPPED = "skipped"
    LIMITED = "limited"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found: `subject` is what it looked at, `note` says what is wrong or else.

    `roles` are those that the check matters to.
    """

    check: str
    subject: str
    status: Status
    note: str = ""
    roles: tuple[Role, ...] = EARNED

    @property
    def reason(self) -> str:
        """The finding as a reason of a verdict."""
        return f"{self.check} {self.subject}: {self.note or self.status}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What pools may be used. A config writes it under `qualification`.

    Attributes:
        required: Whether a pool without a valid verdict is kept out, as one that was refused is;
            where `None`, one of real chips is, and one that is emulated is not.
        days: How long a verdict holds.
        patience: Seconds that others may use chips of a pool which something else is to be
            qualified for; then there is no verdict.
    """

    required: bool | None = None
    days: float = 7.0
    patience: float = 60.0

    def ask_for_one(self, pool: Pool) -> bool:
        """Whether `pool` is kept out without a verdict."""
        return not pool.emulated if self.required is None else self.required


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a pool may do in a role, by what `run` found; `at` and `until` in seconds (epoch).

    `identity` is that of the pool as it was: see `identity`. `nodes` are those that were measured,
    by name, each with what it is told apart by.
    """

    pool: str
    role: Role
    identity: str
    standing: Standing
    reasons: tuple[str, ...] = ()
    run: str
    at: float
    until: float
    nodes: Mapping[str, str] = field(default_factory=dict)

    def strange(self, live: Mapping[str, str]) -> list[str]:
        """Return the names of those of the `live` nodes that it is not of."""
        known = frozenset(self.nodes.values())
        return sorted(name for name, what in live.items() if what not in known)


def identity(pool: Pool) -> str:
    """Return a short hash of what a verdict is of: the chip, how many, where, how emulated.

    The environment that its work runs in is part of it: its software does half the work.
    """
    chip = asdict(pool.accelerator)
    for said_of_its_use in _OF_ITS_USE:
        chip.pop(said_of_its_use)
    facts = {
        "accelerator": chip,
        "nodes": pool.nodes,
        "devices_per_node": pool.devices_per_node,
        "labels": dict(pool.labels),
        "python": pool.python,
        "emulation": asdict(pool.emulation) if pool.emulation else None,
        **({"env": pool.variables} if pool.variables else {}),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def judge(role: Role, findings: Iterable[Finding]) -> tuple[Standing, tuple[str, ...]]:
    """Return the standing that follows for a role, with all its reasons."""
    mine = [finding for finding in findings if role in finding.roles]
    against = tuple(f.reason for f in mine if f.status is Status.FAILED)
    if against:
        return Standing.REFUSED, against
    limits = tuple(f.reason for f in mine if f.status is Status.LIMITED)
    return (Standing.LIMITED if limits else Standing.QUALIFIED), limits


def verdict_of(pool: Pool, role: Role, verdicts: Iterable[Verdict], now: float) -> Verdict | None:
    """Return the verdict that holds at `now` for the pool as it is configured, if one does."""
    mine = identity(pool)
    for verdict in verdicts:
        if (verdict.pool, verdict.role, verdict.identity) == (
            pool.name,
            role,
            mine,
        ) and now < verdict.until:
            return verdict
    return None


def measured(pool: Pool, role: Role, verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """Return what the nodes are told apart by that the last verdict on `pool` is of."""
    mine = identity(pool)
    return tuple(
        node
        for verdict in verdicts
        if (verdict.pool, verdict.role, verdict.identity) == (pool.name, role, mine)
        for node in verdict.nodes.values()
    )


def not_measured(pool: str, nodes: Sequence[str]) -> str:
    """Return the line that names nodes of `pool` that were not qualified, and the way out."""
    remedy = f"`orchestrator qualify {pool}` measures what is there"
    return f"{_not_among(pool, nodes)}: {remedy}"


def _not_among(pool: str, nodes: Sequence[str]) -> str:
    named = ", ".join(map(repr, nodes))
    which, were = ("node", "is not") if len(nodes) == 1 else ("nodes", "are not")
    they_are = "it is" if len(nodes) == 1 else "they are"
    what = f"{which} {named} of pool {pool!r} {were} among those that were qualified"
    return f"{what} ({they_are} new, or the chips are)"


# --- what follows for a plan ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Vetted:
    """A plan without the fallbacks that may not be used.

    `problems` say which chosen pools may not be used, `dropped` which fallbacks, `notes` what else
    there is to know.
    """

    plan: Plan
    problems: tuple[Problem, ...] = ()
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def vet(
    plan: Plan,
    verdicts: Sequence[Verdict],
    rules: Rules,
    now: float,
    roles: Collection[Role] = EARNED,
    live: Mapping[str, Mapping[str, str]] = NOBODY,
) -> Vetted:
    """Return what of `plan` may be used at `now` (seconds since the epoch).

    `roles` are those that anything is done in: what is only reused needs no pool. `live` are the
    nodes of pools, as far as they are known, each with what it is told apart by.
    """
    used = _used(plan, roles)
    verdicts_by_use = {(p, r): verdict_of(plan.pools[p], r, verdicts, now) for p, r in used}
    barred = {
        (name, role): why
        for (name, role), verdict in verdicts_by_use.items()
        if (why := _objection(plan.pools[name], role, verdict, rules, live.get(name, {})))
    }
    trusted = {
        (name, role): verdict
        for (name, role), verdict in verdicts_by_use.items()
        if verdict is not None and rules.ask_for_one(plan.pools[name])
    }
    strange = [
        not_measured(name, nodes)
        for (name, role), verdict in trusted.items()
        if (name, role) not in barred and (nodes := verdict.strange(live.get(name, {})))
    ]
    stages = tuple(_marked(_without(stage, barred), trusted) for stage in plan.stages)
    named = {name for planned in stages for name in (*planned.pools, *planned.overflow)}
    pools = {name: pool for name, pool in plan.pools.items() if name in named}
    return Vetted(
        plan=replace(plan, stages=stages, pools=pools),
        problems=tuple(_problems(plan, barred)),
        dropped=tuple(_dropped(plan, barred)),
        notes=(*_remarks(verdicts_by_use, barred), *dict.fromkeys(strange)),
    )


def trusted_pools(
    plan: Plan,
    verdicts: Sequence[Verdict],
    rules: Rules,
    now: float,
    roles: Collection[Role] = EARNED,
) -> Mapping[str, Pool]:
    """Return the pools of a plan that are used for what their nodes were found to be."""
    return {
        name: plan.pools[name]
        for name, role in _used(plan, roles)
        if rules.ask_for_one(plan.pools[name])
        and verdict_of(plan.pools[name], role, verdicts, now) is not None
    }


def unknown(
    plan: Plan, verdicts: Sequence[Verdict], now: float, roles: Collection[Role] = EARNED
) -> tuple[tuple[str, Role], ...]:
    """Return the chosen pools of a plan, with the role, of which no verdict holds at `now`."""
    chosen = {(planned.pools[0], planned.stage.role) for planned in plan.stages}
    return tuple(
        (pool, role)
        for pool, role in _used(plan, roles)
        if (pool, role) in chosen and verdict_of(plan.pools[pool], role, verdicts, now) is None
    )


def _used(plan: Plan, roles: Collection[Role]) -> tuple[tuple[str, Role], ...]:
    """Return each pool with each role that it must earn here, once."""
    pairs = (
        (name, planned.stage.role)
        for planned in plan.stages
        for name in planned.pools
        if planned.stage.role in roles and planned.devices
    )
    return tuple(dict.fromkeys(pairs))


def _objection(
    pool: Pool, role: Role, verdict: Verdict | None, rules: Rules, live: Mapping[str, str]
) -> str:
    where = f"pool {pool.name!r}"
    if verdict is None:
        return f"{where} is not qualified for {role!s}" if rules.ask_for_one(pool) else ""
    if verdict.standing is not Standing.REFUSED:
        strange = verdict.strange(live) if rules.ask_for_one(pool) else []
        none_left = live and len(strange) == len(live)
        return _not_among(pool.name, strange) if none_left else ""
    more = f" (and {len(verdict.reasons) - 1} more)" if len(verdict.reasons) > 1 else ""
    why = f"{verdict.reasons[0]}{more}" if verdict.reasons else "no reason is kept"
    return f"{where} was refused for {role!s} by run {verdict.run}: {why}"


def _without(planned: PlannedStage, barred: Mapping[tuple[str, Role], str]) -> PlannedStage:
    """Return the stage without the fallbacks that are barred; the chosen pool stays."""
    role = planned.stage.role
    kept = [n for n, p in enumerate(planned.pools) if n == 0 or (p, role) not in barred]
    formats = tuple(planned.formats[n] for n in kept) if planned.formats else ()
    return replace(planned, pools=tuple(planned.pools[n] for n in kept), formats=formats)


def _marked(planned: PlannedStage, trusted: Collection[tuple[str, Role]]) -> PlannedStage:
    """Return the stage with those of its pools whose nodes must be among those measured."""
    role = planned.stage.role
    kept = tuple(name for name in planned.pools if (name, role) in trusted)
    return replace(planned, trusted=kept)


def _problems(plan: Plan, barred: Mapping[tuple[str, Role], str]) -> Iterator[Problem]:
    chosen = ((planned.pools[0], planned.stage.role) for planned in plan.stages)
    for pool, role in dict.fromkeys(chosen):
        why = barred.get((pool, role))
        if why:
            ways = f"`orchestrator qualify {pool}` finds out, --unqualified uses it all the same"
            yield Problem(f"roles.{role}", why, ways)


def _dropped(plan: Plan, barred: Mapping[tuple[str, Role], str]) -> Iterator[str]:
    later = ((p, planned.stage.role) for planned in plan.stages for p in planned.pools[1:])
    for key in dict.fromkeys(later):
        if key in barred:
            yield f"no fallback: {barred[key]}"


def _remarks(
    verdicts: Mapping[tuple[str, Role], Verdict | None], barred: Collection[tuple[str, Role]]
) -> Iterator[str]:
    used = (key for key, verdict in verdicts.items() if verdict is None and key not in barred)
    unknown = [f"{pool} ({role})" for pool, role in used]
    if unknown:
        yield f"Not qualified: {', '.join(unknown)}; `orchestrator qualify POOL` checks a pool."
    for (pool, role), verdict in verdicts.items():
        if verdict is not None and verdict.standing is Standing.LIMITED:
            yield f"{pool} is qualified for {role} with limits: {'; '.join(verdict.reasons)}"
