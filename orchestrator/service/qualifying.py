"""Find out what a pool can do, and keep the verdict.

A pipeline of its own, `pipeline=qualify`, on every node of the pool and on all its chips at once.
What breaks an attempt is a finding too: the pool is refused for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import wiring
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.runs.fleet_on_cluster import fleet_on_cluster
from orchestrator.core.runs.run import Run
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.planted_faults import without_others
from orchestrator.core.spec.stages import Json, Stage
from orchestrator.core.trust.qualification import (
    DAY,
    EARNED,
    Standing,
    Verdict,
    identity,
    judge,
)
from orchestrator.core.trust.trial import failures_of
from orchestrator.service import driving
from orchestrator.service.pools import pool_of, use_again
from orchestrator.wiring.config_source import ConfigSource

PIPELINE = "pipeline=qualify"
QUICK_STEPS = 4
_TYPE = "architecture"  # the parameter of jobs that names the type of a model


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How thoroughly a pool is checked.

    `soak` seconds at the end, as the pipeline has it where `None`. There is no verdict where
    others use chips of the pool for longer than `patience`, in seconds.
    """

    quick: bool = False
    soak: float | None = None
    patience: float | None = None


# What a config.json says beside the fields of its model, and its type: by that the jobs see that
# it is one as released, of which they leave out what they don't know.
_NOT_OF_A_MODEL = frozenset(
    {
        *("architectures", "auto_map", "dtype", "quantization_config"),
        *("torch_dtype", "transformers_version"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualification:
    """Checks of `pool` for `roles`, to be run by the config `settings` (`pipeline=qualify`).

    `model` has the parameters of the model that they compute.
    """

    settings: Settings
    pool: Pool
    roles: tuple[Role, ...]
    depth: Depth
    model: Mapping[str, Json] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """What it would do, in a line."""
        roles = " and ".join(self.roles)
        return f"run the checks of pool {self.pool.name} to {roles}, and keep the verdict"

    def run(self, view: driving.View) -> tuple[Run, tuple[Verdict, ...]]:
        """Run the checks, keep the verdicts, and return both.

        There is no verdict where what ended the run says nothing of the pool.

        Raises:
            PlanError: The pool can't be used at all.
        """
        return _qualify(self, view)


def qualify(
    source: ConfigSource,
    pool: str,
    *,
    role: Role | None = None,
    depth: Depth,
    model_of: str | None = None,
) -> Qualification:
    """Qualify a pool to a role, or to each that has to be earned.

    `model_of` names a pipeline: its model is what the checks compute.

    Raises:
        ConfigError: The pool has no chips, or does not take the role.
        NotFoundError: There is no such pool, or no model yet.
    """
    settings = source.changed(PIPELINE, *source.overrides).settings()
    target = pool_of(settings.fleet, pool)
    if not target.devices:
        what = f"pool {pool!r} has no chips"
        raise ConfigError([Problem("qualify", what, "there is nothing to qualify")])
    roles = tuple(
        earned for earned in ((role,) if role else EARNED) if earned in target.allowed_roles
    )
    if not roles:
        takes = ", ".join(target.allowed_roles)
        what = f"pool {pool!r} does not take the role {str(role or Role.TRAIN)!r}"
        raise ConfigError([Problem("--role", what, f"roles that it takes: {takes}")])
    model = _model_of(source, model_of) if model_of else {}
    return Qualification(settings=settings, pool=target, roles=roles, depth=depth, model=model)


def in_short(settings: Settings, pool: Pool, role: Role) -> Qualification:
    """Qualify a pool, in short, before it is used by the config `settings`."""
    pipeline = wiring.settings([PIPELINE]).resolved["pipeline"]
    checks = wiring.configs.parse({**settings.resolved, "pipeline": pipeline})
    depth = Depth(quick=True, patience=settings.qualification.patience)  # something waits for it
    return Qualification(settings=checks, pool=pool, roles=(role,), depth=depth)


def _qualify(qualification: Qualification, view: driving.View) -> tuple[Run, tuple[Verdict, ...]]:
    pool, roles = qualification.pool, qualification.roles
    words = _words(pool, roles, qualification.depth, qualification.model)
    config = wiring.configs.replaced(qualification.settings.resolved, words)
    settings = wiring.configs.parse(_without_gang(config, roles))
    fleet = without_others(settings.fleet, settings.pipeline)
    settings = replace(settings, overrides=qualification.settings.overrides, fleet=fleet)
    final, nodes = _drive(settings, pool, view)
    verdicts = _verdicts(settings, pool, roles, final)
    store, measured = wiring.database(wiring.home()), _measured(final, nodes)
    for verdict in verdicts:
        store.note_verdict(replace(verdict, nodes=measured))
    if verdicts and all(verdict.standing is not Standing.REFUSED for verdict in verdicts):
        here = fleet_on_cluster(final.header)
        use_again(store, here, pool.name, measured, drained=False)  # who drains has other reasons
    return final, verdicts


def _measured(final: Run, live: Mapping[str, str]) -> dict[str, str]:
    """Return those of the `live` nodes of a pool on which the stage `nodes` was."""
    placed = {name for attempt in final.stages["nodes"].attempts for name in attempt.nodes}
    return {name: what for name, what in live.items() if what and name in placed}


def _words(
    pool: Pool, roles: Sequence[Role], depth: Depth, of: Mapping[str, Json]
) -> Iterator[tuple[str, Json]]:
    """Yield what the pipeline is changed by: where it runs, with how many, how thoroughly."""
    role, stages = roles[0], "pipeline.stages"
    yield "roles", {str(role): pool.name}
    yield "fallbacks", {}
    yield "tags.qualification", pool.name
    needs = {
        "reference": {"workers": 1, "devices": 0, "cpus": 1},
        "nodes": {"workers": pool.nodes, "devices": pool.devices_per_node, "cpus": 1},
        "gang": {"workers": pool.devices, "devices": 1, "cpus": 1},
    }
    params = _params(pool, roles, depth)
    yield f"{stages}.nodes.limits.pending", depth.patience
    for stage, asked in needs.items():
        yield f"{stages}.{stage}.role", str(role)
        yield f"{stages}.{stage}.needs", asked
        for key, value in {**of, **params[stage]}.items():
            yield f"{stages}.{stage}.params.{key}", value


def _params(pool: Pool, roles: Sequence[Role], depth: Depth) -> Mapping[str, Mapping[str, Json]]:
    """Return the parameters of each stage: what it looks for, and how thoroughly."""
    chip = pool.accelerator
    common: dict[str, Json] = {"roles": [str(role) for role in roles], "quick": depth.quick}
    steps: dict[str, Json] = {"steps": QUICK_STEPS} if depth.quick else {}
    soak = 0.0 if depth.quick and depth.soak is None else depth.soak
    lasting: dict[str, Json] = {} if soak is None else {"soak_seconds": soak}
    formats: dict[str, Json] = {"formats": list(chip.computes or chip.formats)}
    counters: dict[str, Json] = {
        "memory_errors": list(chip.memory_errors),
        "memory_errors_pattern": chip.memory_errors_pattern,
    }
    nodes: dict[str, Json] = {
        "devices": pool.devices_per_node,
        "bf16_tflops": chip.bf16_tflops,
        "bandwidth_tbs": chip.bandwidth_tbs,
        "diagnostic": list(chip.diagnostic),
        "diagnostic_failed": chip.diagnostic_failed,
    }
    return {
        "reference": {**common, **steps},
        "nodes": {**common, **formats, **lasting, **counters, **nodes},
        "gang": {**common, **formats, **lasting, **counters, **steps},
    }


def _without_gang(config: Mapping[str, Json], roles: Sequence[Role]) -> Mapping[str, Json]:
    """Return the config without the stage that only training needs, where nobody trains."""
    pipeline = config["pipeline"]
    if Role.TRAIN in roles or not isinstance(pipeline, dict):
        return config
    stages = {name: stage for name, stage in pipeline["stages"].items() if name != "gang"}
    return {**config, "pipeline": {**pipeline, "stages": stages}}


def _drive(settings: Settings, pool: Pool, view: driving.View) -> tuple[Run, Mapping[str, str]]:
    """Return the run of the checks, and what the nodes of the pool are told apart by."""
    planned, home = wiring.plan(settings), wiring.home()
    header = driving.new_header(settings, planned, f"qualify-{pool.name}", home=home)
    header = replace(header, code=wiring.ship(settings, home, header.run))
    request = driving.DriveRequest(settings=settings, header=header, home=home, reuse=False)
    pools = driving.startable(settings, planned)
    with driving.services(settings, home, pools, keep=lambda: False) as addresses:
        view.begins(header)
        final = driving.drive_new(request, addresses, view)
        view.ended(final)
        nodes = wiring.node_identities(settings, home, {pool.name: pool})
    return final, nodes.get(pool.name, {})


def _verdicts(
    settings: Settings, pool: Pool, roles: Sequence[Role], final: Run
) -> tuple[Verdict, ...]:
    failures = failures_of(final)
    if failures is None:
        return ()
    findings = (*failures, *wiring.findings(settings, wiring.home(), final))
    now = wiring.database(wiring.home()).now()
    judged = {role: judge(role, findings) for role in roles}
    return tuple(
        Verdict(
            pool=pool.name,
            role=role,
            identity=identity(pool),
            standing=standing,
            reasons=reasons,
            run=final.header.run,
            at=now,
            until=now + settings.qualification.days * DAY,
        )
        for role, (standing, reasons) in judged.items()
    )


def _model_of(source: ConfigSource, pipeline: str) -> Mapping[str, Json]:
    """Return the parameters of the model that `pipeline` trains: of its last stage that says them.

    Raises:
        ConfigError: It has no stage that trains.
        NotFoundError: None of those says which model it trains, and no run has made that.
    """
    settings = source.changed(f"pipeline={pipeline}").settings()
    training = [stage for stage in settings.pipeline.stages if stage.role is Role.TRAIN]
    if not training:
        what = f"pipeline {pipeline!r} trains no model"
        raise ConfigError([Problem("--model-of", what, "name one with a stage of role 'train'")])
    for stage in reversed(training):
        if parameters := _model_in(settings, stage):
            return parameters
    names = ", ".join(repr(stage.name) for stage in training)
    said = f"no stage of pipeline {pipeline!r} says which model it trains ({names})"
    raise NotFoundError(
        f"{said}: `orchestrator launch pipeline={pipeline}` makes one that is read, or name it "
        f"in the params of such a stage (architecture, model)"
    )


def _model_in(settings: Settings, stage: Stage) -> Mapping[str, Json]:
    """Return the parameters of the model of a stage; none where nobody says them yet.

    They are those of the model that it goes on from, else those that it names, else those of what
    its last run has made, else what its job makes where nothing is named.
    """
    source = settings.pipeline.by_name.get(stage.inputs.get("model", ""))
    params = {key: value for key, value in stage.params.items() if _is_of_model(key, value)}
    known = params if source is None else _model_in(settings, source)
    if known:
        return known
    config = wiring.config_of_last(settings, stage.name)
    if "model_type" in config:
        return model_parameters(config)
    usual = wiring.job_default(settings, stage.job, _TYPE) if stage.job and not source else None
    return {_TYPE: usual} if isinstance(usual, str) else {}


def _is_of_model(key: str, value: Json) -> bool:
    """Whether a parameter of a job says what model it trains."""
    return (key == _TYPE and isinstance(value, str)) or (
        key == "model" and isinstance(value, Mapping)
    )


def model_parameters(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the parameters of jobs that describe the model of a `config.json`."""
    fields = {k: v for k, v in config.items() if k not in _NOT_OF_A_MODEL and k[0] != "_"}
    return {_TYPE: config["model_type"], "model": fields}
