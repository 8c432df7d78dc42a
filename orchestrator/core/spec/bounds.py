"""What the figures of a config may be, of a stage and of a run. "Not a number" is refused too.

Endless is `None`, never an infinite number. A config is checked as it is read, and stages that a
program makes by the same table when they are planned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeGuard

from orchestrator.core.errors import Problem, shown
from orchestrator.core.spec.policy import Bounds
from orchestrator.core.spec.stages import Stage

MOST = 10**15
MOMENT = 0.001  # seconds; what may take no time at all can't be done
# The least and the most that a figure may be; "not a number" is refused with both.
_EVERYWHERE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "seed": (0, 2**32 - 1),
        "cost_limit": (0, MOST),
        "time_limit": (MOMENT, MOST),
        "attempt_limit": (1, 1_000_000),
        "priority": (-1000, 1000),
        "tracking.system_seconds": (0, 86_400),
        "attempts.retry": (0, 86_400),
        "attempts.unanswered": (1, MOST),
        "attempts.avoid": (0, MOST),
        "attempts.shrink": (0, MOST),
        "attempts.grow": (0, MOST),
        "attempts.meet": (1, 86_400),
        "attempts.collective": (1, 86_400),
        "attempts.storage": (0, 86_400),
        "attempts.checkpoint": (1, MOST),
        "attempts.fence": (1, MOST),
        "attempts.quarantine": (0, MOST),
        "attempts.hang": (1, MOST),
        "attempts.hang_steps": (1, 1_000_000),
        "attempts.busy_factor": (1, 1000),
        "attempts.margin": (1, MOST),
        "attempts.begin": (MOMENT, MOST),
        "attempts.settle": (0, 600),
        "attempts.remains": (0, 600),
        "attempts.last_save": (0, 86_400),
        "attempts.skipped_saves": (0, 1_000_000),
        "tracking.start": (1, 86_400),
        "tracking.finish": (0, 3600),
        "tracking.request": (MOMENT, 3600),
        "database.patience": (0, 86_400),
        "storage.cache_gb": (0, MOST),
        "storage.proof": (MOMENT, 86_400),
        "storage.answer": (MOMENT, 86_400),
        "gateway.port": (1, 65_535),
        "gateway.metrics.port": (1, 65_535),
        "gateway.processes": (1, 256),
        "gateway.start": (1, 86_400),
        "gateway.reconciler.loss": (1, MOST),
        "gateway.reconciler.between_moves": (1, MOST),
        "gateway.reconciler.crowd": (0, MOST),
        "gateway.reconciler.lull": (1, MOST),
        "gateway.reconciler.between_helps": (1, MOST),
        "gateway.reconciler.after_failed_move": (0, MOST),
        "gateway.reconciler.outside": (MOMENT, 86_400),
        "gateway.reconciler.outside_failures": (1, 1_000_000),
        "gateway.limits.*": (MOMENT, MOST),
        "jobs.most_mb": (1, 100_000),
        "cluster.object_store_mb": (75, MOST),
        "cluster.patience": (1, MOST),
        "cluster.managed_patience": (1, MOST),
        "cluster.start": (1, 86_400),
        "cluster.hand_over": (1, 86_400),
        "cluster.take_overs": (0, MOST),
        "qualification.patience": (0, MOST),
        "qualification.days": (0, 36_500),
        "fleet.pools.*.nodes": (1, 1_000_000),
        "fleet.pools.*.devices_per_node": (0, 1024),
        "fleet.pools.*.cpus_per_node": (1, 4096),
        "fleet.pools.*.price_per_hour": (0, MOST),
        "fleet.pools.*.emulation.faults.*.at_step": (0, MOST),
        "fleet.pools.*.emulation.faults.*.rate": (0, 1),
        "fleet.pools.*.emulation.faults.*.rank": (0, 1_000_000),
        "fleet.pools.*.emulation.faults.*.attempts": (1, 1000),
        "fleet.pools.*.emulation.faults.*.steps": (1, MOST),
        "fleet.pools.*.emulation.faults.*.code": (0, 255),
        "fleet.pools.*.emulation.faults.*.factor": (1, 1_000_000),
        "fleet.pools.*.emulation.faults.*.seconds": (0, 86_400),
        "fleet.pools.*.accelerator.joining_seconds.*": (1, 86_400),
        "fleet.pools.*.accelerator.memory_gb": (0, MOST),
        "fleet.pools.*.accelerator.bandwidth_tbs": (0, MOST),
        "fleet.pools.*.accelerator.bf16_tflops": (0, MOST),
        "fleet.pools.*.accelerator.fp8_tflops": (0, MOST),
        "fleet.pools.*.accelerator.link_gbs": (0, MOST),
        "fleet.pools.*.accelerator.price_per_hour": (0, MOST),
        "engines.*.makers.*.multiples.*.*": (1, 1 << 16),
        "engines.*.at_once": (1, 100_000),
        "engines.*.probe_seconds": (0.1, 86_400),
        "engines.*.deadline": (0.1, 86_400),
        "engines.*.grace": (0, 86_400),
        "engines.*.health_seconds": (MOMENT, 86_400),
        "engines.*.long_seconds": (MOMENT, 86_400),
        "engines.*.unwell": (1, 1_000_000),
        "pipeline.stages.*.needs.workers": (1, 1_000_000),
        "pipeline.stages.*.needs.devices": (0, 1024),
        "pipeline.stages.*.needs.cpus": (0, 4096),
        "pipeline.stages.*.needs.memory_gb": (0, MOST),
        "pipeline.stages.*.needs.min_workers": (1, 1_000_000),
        "pipeline.stages.*.limits.attempts": (1, 1000),
        "pipeline.stages.*.limits.tries": (1, 1000),
        "pipeline.stages.*.limits.total": (1, 1_000_000),
        "pipeline.stages.*.limits.timeout": (MOMENT, MOST),
        "pipeline.stages.*.limits.grace": (0, MOST),
        "pipeline.stages.*.limits.grace_unsaved": (0, MOST),
        "pipeline.stages.*.limits.kill_after": (0, 600),
        "pipeline.stages.*.limits.pending": (0, MOST),
        "pipeline.stages.*.limits.queued": (0, MOST),
        "pipeline.stages.*.limits.cost": (0, MOST),
        "pipeline.stages.*.limits.backoff": (0, 86_400),
        "pipeline.stages.*.hours": (0, 1_000_000),
        "pipeline.stages.*.recovery.checkpoints": (1, 1000),
        "pipeline.stages.*.recovery.rate": (0.000001, 1.0),
        "pipeline.stages.*.recovery.accumulate": (2, 64),
        "pipeline.stages.*.recovery.keep": (1, 1000),
        "pipeline.stages.*.recovery.failback": (0, MOST),
        "pipeline.stages.*.watch.hang": (1, MOST),
        "pipeline.stages.*.watch.window": (0, 100_000),
        "pipeline.stages.*.watch.deviations": (1, 1000),
        "pipeline.stages.*.watch.patience": (1, 1000),
        "pipeline.stages.*.gate.least": (1, MOST),
        "pipeline.stages.*.gate.deadline": (0, MOST),
        "pipeline.stages.*.gate.timeout": (MOMENT, 86_400),
        "pipeline.stages.*.endpoint.replicas": (1, 10_000),
        "pipeline.stages.*.endpoint.max_replicas": (1, 10_000),
        "pipeline.stages.*.endpoint.scale.*.replicas": (1, 10_000),
        "pipeline.stages.*.endpoint.scale.*.max_replicas": (1, 10_000),
        "pipeline.stages.*.endpoint.target_requests": (0.1, 100_000),
        "pipeline.stages.*.endpoint.target_tokens": (1, MOST),
        "pipeline.stages.*.endpoint.idle": (1, MOST),
        "pipeline.stages.*.endpoint.ready": (1, MOST),
        "pipeline.stages.*.endpoint.drain": (1, MOST),
        "pipeline.stages.*.endpoint.concurrency": (1, 100_000),
        "pipeline.stages.*.endpoint.queue": (0, 1_000_000),
        "pipeline.stages.*.endpoint.rollout.steps.*": (1, 100),
        "pipeline.stages.*.endpoint.rollout.hold": (0, 86_400),
        "pipeline.stages.*.endpoint.rollout.requests": (1, MOST),
        "pipeline.stages.*.endpoint.rollout.error_rate": (0, 1),
        "pipeline.stages.*.endpoint.rollout.slower": (1, 1000),
        "pipeline.stages.*.endpoint.rollout.agreement": (0, 1),
        "pipeline.stages.*.endpoint.rollout.certainty": (3, MOST),
        "pipeline.stages.*.endpoint.rollout.doubt": (0, MOST),
        "pipeline.stages.*.endpoint.rollout.answer": (1, 86_400),
    }
)
_OF_A_STAGE = "pipeline.stages.*."
_ON_A_POOL = {
    pattern.replace(_OF_A_STAGE, f"{_OF_A_STAGE}on.*."): bounds
    for pattern, bounds in _EVERYWHERE.items()
    if pattern.removeprefix(_OF_A_STAGE).startswith(("needs.", "watch."))
}
BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType({**_EVERYWHERE, **_ON_A_POOL})
# Those of a stage, by its field that they are of: most stages lack most fields.
_BY_FIELD: dict[str, list[tuple[tuple[str, ...], tuple[float, float]]]] = {}
for _pattern, _bounds in BOUNDS.items():
    if _pattern.startswith(_OF_A_STAGE):
        _field, *_parts = _pattern.removeprefix(_OF_A_STAGE).split(".")
        _BY_FIELD.setdefault(_field, []).append((tuple(_parts), _bounds))


def problems_of_stage(stage: Stage) -> Iterator[Problem]:
    """Yield which figures of `stage` can't be."""
    path = f"pipeline.stages.{stage.name}"
    for name, patterns in _BY_FIELD.items():
        if (held := getattr(stage, name)) is None or held == {}:
            continue
        for parts, bounds in patterns:
            for where, value in _figures(held, parts, f"{path}.{name}"):
                yield from _problem(where, value, bounds)
    named = {name: differs.needs for name, differs in stage.on.items() if differs.needs}
    sizes = {f"{path}.needs": stage.needs}
    sizes |= {f"{path}.on.{name}.needs": needs for name, needs in named.items()}
    for where, needs in sizes.items():
        if needs.least > needs.workers:
            what = f"{needs.least!r} is more than the {needs.workers!r} workers at most"
            yield Problem(f"{where}.min_workers", what, "lower it")


def problems_of_run(bounds: Bounds) -> Iterator[Problem]:
    """Yield which limits of a run can't be."""
    limits = {
        "cost_limit": bounds.cost,
        "time_limit": bounds.time,
        "attempt_limit": bounds.attempts,
    }
    for path, value in limits.items():
        yield from _problem(path, value, BOUNDS[path])


def _problem(path: str, value: float | None, bounds: tuple[float, float]) -> Iterator[Problem]:
    least, most = bounds
    if value is None or least <= value <= most:
        return
    if value > most:
        yield Problem(path, f"{shown(value)} is too large", f"set {most:g} or less, or null")
    else:
        yield Problem(path, f"{shown(value)} is too small", f"set {least!r} or more")


def _figures(holder: object, parts: Sequence[str], path: str) -> Iterator[tuple[str, float]]:
    """Yield what stands in `holder` where `parts` lead, if it is a figure, with its path."""
    if not parts:
        if isinstance(holder, int | float):
            yield path, holder
        return
    name, *rest = parts
    if name != "*":
        inside = {name: getattr(holder, name, None)}
    elif isinstance(holder, Mapping):
        inside = dict(holder)
    else:
        inside = {str(at): item for at, item in enumerate(holder)} if _listed(holder) else {}
    for key, value in inside.items():
        yield from _figures(value, rest, f"{path}.{key}")


def _listed(holder: object) -> TypeGuard[Sequence[object]]:
    return isinstance(holder, tuple | list)
