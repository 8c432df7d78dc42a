"""What a controller asks of a pool: the request of an attempt, the deployment of an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ANY_ROOM, ArtifactRef, CacheRoom
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.failures.signatures import Signature
from orchestrator.core.runs.decide import Start
from orchestrator.core.runs.recovery import QUIET, Outlook
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.command_stages import writes_to_mlflow
from orchestrator.core.spec.environment_variables import secret_sources
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.parity import KL_MEAN_LIMIT, guards
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.stages import Json, Stage
from orchestrator.messages import AttemptRequest, Succeeded, TrackedAt


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDefaults:
    """What every attempt of the run is given, beside its stage.

    `service.driving` makes them of the settings, `attempt_request` and `deployment` hand them on.
    `reuse_key` returns the key under which the result of a stage may be reused, or `None`.
    `kept_results` stand whatever their key: those of the run that a switch starts from, with its
    id. `earlier` is the run whose checkpoints this one goes on from, if there is one.
    `measured` returns what the nodes are told apart by on which a pool was last qualified. `waits`
    says how long it all may take. `secret` returns the value of a secret by its source, `None`
    where there is none on this host. `room` is what nodes may keep of artifacts.
    """

    packages: tuple[str, ...]
    code: tuple[str, ...]
    storage: str
    reuse_key: Callable[[Run, StageRun], str | None]
    signatures: tuple[Signature, ...] = ()
    waits: AttemptSettings = PATIENT
    room: CacheRoom = ANY_ROOM
    kept_results: Mapping[str, tuple[Succeeded, str]] = field(default_factory=dict)
    earlier: Run | None = None
    measured: Callable[[Pool, Role], tuple[str, ...]] = lambda _pool, _role: ()
    secret: Callable[[str], str | None] = lambda _source: None
    tracked: Callable[[], TrackedAt | None] = lambda: None


def attempt_request(
    run: Run,
    defaults: AttemptDefaults,
    command: Start,
    inputs: Mapping[str, ArtifactRef],
    outlook: Outlook = QUIET,
) -> AttemptRequest:
    """Return the request of the attempt of a job that `command` starts."""
    own = run.stages[command.stage].avoid if command.pool == run.stages[command.stage].pool else ()
    quarantined = outlook.quarantined.get(command.pool, ())
    stage_run = run.stages[command.stage]
    stage, pool = stage_run.planned.stage.on_pool(command.pool), run.plan.pools[command.pool]
    return AttemptRequest(
        run=run.header.run,
        stage=stage.name,
        attempt=command.number,
        epoch=run.epoch,
        job=stage.job or "",
        params=stage.params,
        packages=defaults.packages,
        code=defaults.code,
        shipped=run.header.code,
        inputs=inputs,
        storage=defaults.storage,
        room=defaults.room,
        seed=run.plan.seed,
        pool=pool,
        needs=stage.needs,
        adjust=stage_run.adjust,
        avoid=tuple(dict.fromkeys((*own, *quarantined))),
        drained=tuple(outlook.drained_nodes.get(command.pool, ())),
        keep=stage.recovery.kept,
        kill_after=stage.limits.kill_after,
        waits=defaults.waits,
        watch=stage.watch,
        signatures=defaults.signatures,
        continues=_continues(run, defaults.earlier, stage, inputs) if defaults.earlier else "",
        measured=_measured(run, defaults, command),
        env={**pool.variables, **stage.env},
        secrets=dict(_secrets(stage, pool, defaults)),
        tracked=defaults.tracked() if writes_to_mlflow(stage) else None,
    )


def lacking_secrets(run: Run, defaults: AttemptDefaults, command: Start) -> str:
    """Return which secrets of an attempt have no value on this host, in words; empty if none."""
    stage, pool = run.stages[command.stage].planned.stage, run.plan.pools[command.pool]
    given = dict(_secrets(stage, pool, defaults))
    sources = secret_sources(stage, pool).items()
    return ", ".join(f"{name} by {source}" for name, source in sources if name not in given)


def _secrets(stage: Stage, pool: Pool, defaults: AttemptDefaults) -> Iterator[tuple[str, str]]:
    for name, source in secret_sources(stage, pool).items():
        value = defaults.secret(source)
        if value is not None:
            yield name, value


def _measured(run: Run, defaults: AttemptDefaults, command: Start) -> tuple[str, ...] | None:
    """Return what the nodes are told apart by that may be used; `None` where any may.

    The last verdict counts, which may be later than the plan.
    """
    planned = run.stages[command.stage].planned
    if command.pool not in planned.trusted:
        return None
    return defaults.measured(run.plan.pools[command.pool], planned.stage.role)


def _continues(run: Run, earlier: Run, stage: Stage, inputs: Mapping[str, ArtifactRef]) -> str:
    """Return where an earlier run has the checkpoints of a stage, if it did the same there."""
    before = earlier.stages.get(stage.name)
    if before is None:
        return ""
    was = before.planned.stage
    read = {name: earlier.stages[source].artifact for name, source in was.inputs.items()}
    then = {name: ref.digest for name, ref in read.items() if ref}
    now = {name: ref.digest for name, ref in inputs.items()}
    same = then == now and not _differences(run.plan, earlier, stage, was)
    return artifact_paths.checkpoints(earlier.header.run, stage.name) if same else ""


def anew(planned: Plan, earlier: Run) -> Iterator[str]:
    """Yield a line for each job of a run of `planned` that can't go on from run `earlier`.

    What it reads may differ too, which is known when that is made.
    """
    name = earlier.header.run
    for stage in (planned_stage.stage for planned_stage in planned.stages):
        before = earlier.stages.get(stage.name)
        if stage.job is None:
            continue
        if before is None:
            yield f"stage {stage.name!r} begins anew: run {name} has no stage of that name"
            continue
        differ = _differences(planned, earlier, stage, before.planned.stage)
        if differ:
            singular = differ in (["job"], ["seed"])
            differ_from = "differs from that" if singular else "differ from those"
            what = f"its {' and '.join(differ)} {differ_from} in run {name}"
            yield f"stage {stage.name!r} begins anew: {what}"


def _differences(planned: Plan, earlier: Run, stage: Stage, was: Stage) -> list[str]:
    """Return what has a stage do something else than it did in run `earlier`, inputs aside."""
    same = {
        "job": stage.job == was.job,
        "seed": planned.seed == earlier.plan.seed,
        "params": _params(stage) == _params(was),
    }
    return [name for name, equal in same.items() if not equal]


def _params(stage: Stage) -> dict[str, Mapping[str, Json]]:
    """Return the parameters of a stage, and what differs of them by pool."""
    return {"": stage.params, **{name: on.params for name, on in stage.on.items() if on.params}}


def deployment(
    run: Run, defaults: AttemptDefaults, command: Start, model: ArtifactRef
) -> Deployment:
    """Return the deployment of `model` that `command` starts."""
    planned = run.stages[command.stage].planned
    endpoint = planned.stage.endpoint
    assert endpoint is not None, "only a stage with an endpoint is deployed"  # noqa: S101
    requested = Deployment(
        run=run.header.run,
        stage=command.stage,
        attempt=command.number,
        endpoint=endpoint.on(command.pool),
        model=model,
        format=planned.formats[planned.pools.index(command.pool)],
        fallbacks=planned.pools[planned.pools.index(command.pool) + 1 :],
        pool=run.plan.pools[command.pool],
        needs=planned.stage.on_pool(command.pool).needs,
        packages=defaults.packages,
        code=defaults.code,
        shipped=run.header.code,
        storage=defaults.storage,
        room=defaults.room,
        patience=defaults.waits.storage,
        trained=_trained(run, planned.stage, endpoint.model) or model.digest,
        limits=_limits(run, planned.stage),
        kl_mean=_derived(run, planned.stage),
        proof=_proof(run, planned.stage),
        measured=_measured(run, defaults, command),
        env=planned.stage.env,
        secrets=secret_sources(planned.stage, run.plan.pools[command.pool]),
    )
    weights = endpoint.weights
    if weights is None:
        return requested
    # What was found of the model that the run made proves nothing about these.
    given = ArtifactRef(weights.uri, weights.digest, 0)
    return replace(requested, model=given, version=weights.version, kl_mean=None, proof=None)


def _trained(run: Run, serving: Stage, model: str) -> str:
    """Return the digest of what a stage trained from which the served model comes, if one did."""
    waiting = [serving.inputs[model]] if model in serving.inputs else []
    while waiting:
        stage_run = run.stages.get(waiting.pop(0))
        if stage_run is None:
            continue
        stage = stage_run.planned.stage
        if stage.role is Role.TRAIN and stage_run.artifact is not None:
            return stage_run.artifact.digest
        waiting += stage.inputs.values()
    return ""


def _proof(run: Run, serving: Stage) -> ArtifactRef | None:
    """Return what the last guard of an endpoint has made."""
    passed = guards((stage.planned.stage for stage in run.stages.values()), serving)
    artifacts = [run.stages[guard.name].artifact for guard in passed]
    return next((ref for ref in reversed(artifacts) if ref is not None), None)


def _derived(run: Run, serving: Stage) -> float | None:
    """Return the mean KL divergence that the guards of an endpoint have derived for its model."""
    passed = guards((stage.planned.stage for stage in run.stages.values()), serving)
    limits = (run.stages[guard.name].metrics.get(KL_MEAN_LIMIT) for guard in passed)
    return min((limit for limit in limits if limit is not None), default=None)


def _limits(run: Run, serving: Stage) -> dict[str, float]:
    """Return the mean KL divergences that the guards of an endpoint allow, by format."""
    limits: dict[str, float] = {}
    for guard in guards((stage.planned.stage for stage in run.stages.values()), serving):
        by_format = guard.params.get("limits")
        for form, figures in by_format.items() if isinstance(by_format, Mapping) else ():
            allowed = figures.get("kl_mean") if isinstance(figures, Mapping) else None
            if isinstance(allowed, int | float):
                limits[form] = float(allowed)
    return limits
