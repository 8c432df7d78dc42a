"""What can be known to be impossible before any hardware is touched.

Each problem carries the config path at which the user can mend it. A check yields; it never
stops at the first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType

from orchestrator.core.address_passwords import holds_password, password_problems
from orchestrator.core.errors import Problem, shown
from orchestrator.core.failures.kinds import Action, FailureKind
from orchestrator.core.nearest import choices
from orchestrator.core.spec import formats
from orchestrator.core.spec.bounds import problems_of_stage
from orchestrator.core.spec.capacity import problems_of_room
from orchestrator.core.spec.command_stages import problems_of_command
from orchestrator.core.spec.engine_checks import indivisible, refused_options
from orchestrator.core.spec.engines import CPU, Maker, is_server, maker_of, split_of
from orchestrator.core.spec.environment_variables import problems_of_environment
from orchestrator.core.spec.hardware import Fleet, Pool
from orchestrator.core.spec.model_shapes import KEY, RECORDS, unreadable, unreadable_experts
from orchestrator.core.spec.outside_servers import is_address
from orchestrator.core.spec.planted_faults import problems_of_faults
from orchestrator.core.spec.stages import Bindings, Endpoint, Json, Pipeline, Stage

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
# Of a name that becomes a folder, a file, a label of a node and a tag; DNS and Ray allow as many.
LONGEST_NAME = 63
HINTED = 20  # names of stages that don't exist for which the nearest is sought


def problems_of(pipeline: Pipeline, fleet: Fleet, bindings: Bindings) -> Iterator[Problem]:
    """Yield every reason why `pipeline` can't run on `fleet`."""
    yield from _binding_problems(fleet, bindings)
    yield from _name_problems(pipeline)
    yield from _graph_problems(pipeline)
    stages = pipeline.by_name
    for stage in pipeline.stages:
        yield from _value_problems(stage)
        yield from problems_of_stage(stage)
        yield from problems_of_command(stage, bindings.order(stage))
        yield from _role_problems(stage, fleet, bindings)
        yield from _engine_problems(stage, fleet, bindings)
        yield from _format_problems(stage, stages, fleet, bindings)
        yield from formats.format_problems(stage)
        yield from formats.recipe_problems(stage)
        yield from formats.plain_problems(stages, stage)
        yield from _shape_problems(stage, stages, fleet, bindings)
        yield from _scale_problems(stage, fleet)
        yield from _overflow_problems(stage, fleet)
    yield from problems_of_faults(pipeline, fleet, bindings)
    yield from problems_of_environment(pipeline, fleet)


# --- the pipeline -----------------------------------------------------------------------------


def _binding_problems(fleet: Fleet, bindings: Bindings) -> Iterator[Problem]:
    bound = [(f"roles.{role}", name) for role, name in bindings.roles.items()]
    for role, names in bindings.fallbacks.items():
        bound.extend((f"fallbacks.{role}", name) for name in names)
    for path, name in bound:
        if name not in fleet.pools:
            yield _unknown_pool(path, name, fleet)


def _unknown_pool(path: str, name: str, fleet: Fleet) -> Problem:
    what = f"{shown(name)} is not a pool of fleet {shown(fleet.name)}"
    return Problem(path, what, choices(name, fleet.pools, "pools of this fleet"))


def _name_problems(pipeline: Pipeline) -> Iterator[Problem]:
    if not pipeline.stages:
        yield Problem("pipeline.stages", f"pipeline {pipeline.name!r} has no stage", "add one")
    for name, count in Counter(stage.name for stage in pipeline.stages).items():
        path = f"pipeline.stages.{name}"
        if count > 1:
            yield Problem(path, f"two stages are called {name!r}", "rename one")
        yield from _bad_name(path, name, "a stage")
    yield from _bad_name("pipeline.name", pipeline.name, "a pipeline")


def _bad_name(path: str, name: str, what: str) -> Iterator[Problem]:
    """Refuse a name that can't be that of a folder, a label or a tag."""
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        hint = "letters, digits, and between them '_', '.' and '-'"
        yield Problem(
            path, f"{shown(name)} is no name for {what}", f"use up to {LONGEST_NAME} {hint}"
        )


def _graph_problems(pipeline: Pipeline) -> Iterator[Problem]:
    graph = {stage.name: stage.upstream for stage in pipeline.stages}
    hints: dict[str, str] = {}
    for name, before in graph.items():
        for upstream in before:
            if upstream not in graph:
                what = f"reads from {shown(upstream)}, which is not a stage"
                if upstream not in hints and len(hints) < HINTED:
                    hints[upstream] = choices(upstream, graph, "stages")
                yield Problem(f"pipeline.stages.{name}", what, hints.get(upstream, ""))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names = error.args[1]
        around = [*names[:HINTED], "...", names[-1]] if len(names) > HINTED else names
        cycle = " -> ".join(around)
        yield Problem("pipeline.stages", f"the stages form a cycle: {cycle}", "cut it somewhere")


# --- a stage ----------------------------------------------------------------------------------


def _value_problems(stage: Stage) -> Iterator[Problem]:
    path = f"pipeline.stages.{stage.name}"
    if (stage.job is None) == (stage.endpoint is None):
        what = f"sets {'neither' if stage.job is None else 'both'} of 'job' and 'endpoint'"
        yield Problem(path, what, "set one of them")
    if stage.endpoint:
        yield from _bad_name(f"{path}.endpoint.name", stage.endpoint.name, "an endpoint")
    if stage.endpoint and stage.endpoint.model not in stage.inputs:
        what = f"{shown(stage.endpoint.model)} is not an input of the stage"
        hint = f"inputs: {', '.join(stage.inputs) or 'none'}"
        yield Problem(f"{path}.endpoint.model", what, hint)
    yield from _gate_problems(path, stage)
    yield from _action_problems(path, stage)


def _gate_problems(path: str, stage: Stage) -> Iterator[Problem]:
    gate = stage.gate
    if gate and gate.kind != "approval" and not gate.target:
        yield Problem(f"{path}.gate.target", f"a gate of kind {gate.kind!r} has none", "set it")
    elif gate and gate.kind != "approval" and holds_password(gate.target):
        hint = "name an address that answers without one"
        yield from password_problems(f"{path}.gate.target", gate.target, hint)
    elif gate and gate.kind == "url" and not is_address(gate.target):
        what = f"{shown(gate.target)} is no URL"
        yield Problem(f"{path}.gate.target", what, "give http(s)://HOST...")


def _action_problems(path: str, stage: Stage) -> Iterator[Problem]:
    """Refuse actions that can't help: they would only fail again."""
    for kind, action in stage.on_failure.items():
        why = HOPELESS.get((kind, action))
        if why:
            what = f"{str(action)!r} can't help against {str(kind)!r}: {why}"
            yield Problem(f"{path}.on_failure.{kind}", what, "leave it out")


_EVERYWHERE = "it fails the same way on every pool"
_NOT_ALIKE = "what is served must do what was trained"
_WANTED = "somebody wanted it to end"
_USED_UP = "what is used up stays so; set other limits"
_ENDS = {Action.STOP, Action.PAUSE}
_LIMITS = (FailureKind.BUDGET, FailureKind.TIME)
HOPELESS: Mapping[tuple[FailureKind, Action], str] = MappingProxyType(
    {
        (FailureKind.USER_CODE, Action.FALL_BACK): _EVERYWHERE,
        (FailureKind.DATA, Action.FALL_BACK): _EVERYWHERE,
        (FailureKind.UNSUPPORTED_OPERATOR, Action.RETRY): "the pool lacks it still",
        (FailureKind.UNSUPPORTED_OPERATOR, Action.OTHER_NODES): "its other nodes lack it too",
        **{(FailureKind.PARITY, action): _NOT_ALIKE for action in set(Action) - _ENDS},
        **{(FailureKind.CANCELLED, action): _WANTED for action in set(Action) - {Action.STOP}},
        **{(kind, action): _USED_UP for kind in _LIMITS for action in set(Action) - _ENDS},
    }
)


# --- a stage on its pools ---------------------------------------------------------------------


def _role_problems(stage: Stage, fleet: Fleet, bindings: Bindings) -> Iterator[Problem]:
    path = f"pipeline.stages.{stage.name}"
    for where, name in (("pool", stage.pool), *(("on", name) for name in stage.on)):
        if name and name not in fleet.pools:
            yield _unknown_pool(f"{path}.{where}", name, fleet)
    if not stage.pool and stage.role not in bindings.roles:
        hint = f"set roles.{stage.role} to one of: {_names(fleet)}"
        yield Problem(f"roles.{stage.role}", f"no pool for stage {stage.name!r}", hint)
    for pool in _candidates(stage, fleet, bindings):
        yield from _pool_problems(stage, pool)


def _candidates(stage: Stage, fleet: Fleet, bindings: Bindings) -> list[Pool]:
    """Return the known pools of a stage, less the fallbacks that can't be used at present."""
    order = bindings.order(stage)
    pools = [fleet.pools[name] for name in order if name in fleet.pools]
    return [pool for pool in pools if pool.available or pool.name == order[0]]


def _pool_problems(stage: Stage, pool: Pool) -> Iterator[Problem]:
    differs = pool.name in stage.on and stage.on[pool.name].needs is not None
    stage = stage.on_pool(pool.name)
    path, where = f"pipeline.stages.{stage.name}", f"pool {pool.name!r}"
    if not pool.available:
        yield Problem(path, f"{where} is not available: {pool.excuse}", "bind another pool")
    if stage.role not in pool.allowed_roles:
        what = f"{where} does not take the role {str(stage.role)!r}"
        yield Problem(path, what, f"roles that it takes: {', '.join(pool.allowed_roles)}")
    yield from problems_of_room(f"{path}.on.{pool.name}" if differs else path, stage, pool)


def _engine_problems(stage: Stage, fleet: Fleet, bindings: Bindings) -> Iterator[Problem]:
    """Refuse an engine that is nowhere, or that can't use what would be reserved for it."""
    endpoint = stage.endpoint
    if endpoint is None:
        return
    devices = max(stage.on_pool(name).needs.devices for name in ("", *stage.on))
    path = f"pipeline.stages.{stage.name}"
    if endpoint.server is None:
        if devices > 1 and not is_server(endpoint.engine):
            what = f"engine {shown(endpoint.engine)} uses one device of {devices!r}"
            hint = "ask for one, or choose an engine server: endpoint.engine=vllm"
            yield Problem(f"{path}.needs.devices", what, hint)
        return
    yield from _option_problems(f"{path}.endpoint.engine_options", endpoint)
    pools = _candidates(stage, fleet, bindings)
    if pools and endpoint.server.on(pools[0]) is None:
        yield _not_there(f"{path}.endpoint.engine", endpoint, pools[0])
    yield from _split_problems(f"{path}.endpoint.engine_options", stage, pools)


def _option_problems(path: str, endpoint: Endpoint) -> Iterator[Problem]:
    assert endpoint.server is not None, "an engine class is told what it takes"  # noqa: S101
    for name, why in refused_options(endpoint.server, endpoint.engine_options):
        what = f"engine {endpoint.engine!r} can't be told this: {why}"
        yield Problem(f"{path}.{name}", what, "leave it out")


def _split_problems(path: str, stage: Stage, pools: Sequence[Pool]) -> Iterator[Problem]:
    """Refuse options that would leave chips idle; once, though it may be so on several pools."""
    assert stage.endpoint is not None, "it is asked of endpoints"  # noqa: S101
    server, options = stage.endpoint.server, stage.endpoint.engine_options
    for pool in pools:
        if server is None or server.on(pool) is None:
            continue
        try:
            split = split_of(
                server, server.all_options(pool, options), stage.on_pool(pool.name).needs.devices
            )
        except ValueError as error:
            yield Problem(path, str(error), "tensor x pipeline x data is to be needs.devices")
            return
        if torn := split.torn_by(pool):
            yield Problem(path, torn, "have each copy take whole nodes, or a part of one")
            return


def spread_problems(stage: Stage, pool: Pool, config: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield why a model can't be spread over the chips of a replica, by its `config.json`.

    It is asked where the model is there already: else the replica refuses it.
    """
    endpoint, devices = stage.endpoint, stage.needs.devices
    if endpoint is None or endpoint.server is None:
        return
    given = endpoint.server.all_options(pool, endpoint.engine_options)
    split = split_of(endpoint.server, given, devices)
    path = f"pipeline.stages.{stage.name}.needs.devices"
    hint = "set needs.devices to a number that"
    for why in indivisible(config, split):
        yield Problem(path, why, f"{hint} divides it")
    maker = endpoint.server.on(pool) or Maker()
    what = f"engine {endpoint.engine!r} can't read it"
    for why in unreadable(config, split.tensor, maker.multiples):
        yield Problem(path, f"{what}: {why}", f"{hint} divides it, or choose another format")
    for why in unreadable_experts(config, maker.dense):
        engine = f"pipeline.stages.{stage.name}.endpoint.engine"
        yield Problem(engine, f"{what} on {pool.name!r}: {why}", "choose another format, or pool")


def _shape_problems(
    stage: Stage, stages: Mapping[str, Stage], fleet: Fleet, bindings: Bindings
) -> Iterator[Problem]:
    """Refuse a model that can't be spread over a replica, where a stage says how it is built."""
    weights_format = formats.made_format(stages, stage) or ""
    config = formats.built(stages, stage)
    pools = _candidates(stage, fleet, bindings)[:1]
    if not config or not pools or not formats.runs(stage, pools[0]):
        return
    said = RECORDS.get(weights_format)
    with suppress(ValueError):  # told of its options
        whole = {**config, **({KEY: said} if said else {})}
        yield from spread_problems(stage.on_pool(pools[0].name), pools[0], whole)


def _not_there(path: str, endpoint: Endpoint, pool: Pool) -> Problem:
    assert endpoint.server is not None, "an engine class runs wherever torch does"  # noqa: S101
    what = f"engine {endpoint.engine!r} does not run on pool {pool.name!r}"
    if pool.emulated and pool.device != CPU:
        return Problem(path, f"{what}, an emulated {pool.device!r}", "emulate it on the CPU")
    makers = ", ".join(endpoint.server.makers)
    hint = f"makers that it knows: {makers}; add {maker_of(pool)!r} to conf/engine"
    return Problem(path, what, hint)


def _format_problems(
    stage: Stage, stages: Mapping[str, Stage], fleet: Fleet, bindings: Bindings
) -> Iterator[Problem]:
    if stage.endpoint is None:
        return
    pools = _candidates(stage, fleet, bindings)
    aside = formats.left_out(stages, stage, pools)
    weights_format = formats.made_format(stages, stage)
    asked = (
        ", ".join(stage.endpoint.formats)
        if weights_format in (None, formats.AUTO)
        else weights_format
    )
    for pool in pools:
        runs = formats.runs(stage, pool)
        if runs and pool.name not in aside and formats.served_format(stages, stage, pool) is None:
            what = f"pool {pool.name!r} can't serve {asked!r}"
            hint = _able(pool, stage)
            wanted = formats.other_dialect(stages, stage, pool)
            if wanted is not None:
                what += f" as it is written, in dialect {wanted[0]!r}"
                hint = f"{stage.endpoint.engine} reads it there in dialect {wanted[1]!r}"
            yield Problem(f"pipeline.stages.{stage.name}", what, hint)


def _scale_problems(stage: Stage, fleet: Fleet) -> Iterator[Problem]:
    if stage.endpoint is None:
        return
    path = f"pipeline.stages.{stage.name}.endpoint"
    yield from _bound_problems(path, stage.endpoint)
    for name in stage.endpoint.scale:
        if name in fleet.pools:
            yield from _bound_problems(f"{path}.scale.{name}", stage.endpoint.on(name))
        else:
            yield _unknown_pool(f"{path}.scale", name, fleet)


def _bound_problems(path: str, endpoint: Endpoint) -> Iterator[Problem]:
    least, most = endpoint.replicas, endpoint.max_replicas
    if most is not None and most < least:
        what = f"{most!r} is less than the {least!r} replicas that there are at least"
        yield Problem(f"{path}.max_replicas", what, "raise it, or lower replicas")


def _overflow_problems(stage: Stage, fleet: Fleet) -> Iterator[Problem]:
    if stage.endpoint is None:
        return
    path = f"pipeline.stages.{stage.name}.endpoint.overflow"
    offered = stage.endpoint.formats
    for name in stage.endpoint.overflow:
        pool = fleet.pools.get(name)
        if pool is None:
            yield _unknown_pool(path, name, fleet)
        elif not pool.available:
            continue  # it helps out when it is back
        elif not formats.runs(stage, pool):
            yield _not_there(path, stage.endpoint, pool)
        elif not any(formats.serves(pool, form, stage.endpoint.server) for form in offered):
            what = f"pool {name!r} can't serve any of: {', '.join(offered)}"
            yield Problem(path, what, _able(pool, stage))
        else:
            yield from _pool_problems(stage, pool)


def _able(pool: Pool, stage: Stage) -> str:
    server = stage.endpoint.server if stage.endpoint else None
    able = [form for form in pool.accelerator.formats if not server or server.reads(form, pool)]
    by = f" by {server.name}" if server else ""
    return f"formats that it serves{by}: {', '.join(able) or 'none'}"


def _names(fleet: Fleet) -> str:
    return ", ".join(sorted(fleet.pools)) or "none"
