"""`orchestrator qualify POOL`: find out what a pool can do, and keep the verdict.

A pipeline of its own, `pipeline=qualify`, on every node of the pool and on all its chips at once.
What breaks an attempt is a finding too: the pool is refused for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from orchestrator import session, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import composing, launch, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.nearest import choices
from orchestrator.core.runs.run import Run
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.planted_faults import without_others
from orchestrator.core.spec.stages import Json
from orchestrator.core.trust.qualification import DAY, EARNED, Standing, Verdict, identity, judge
from orchestrator.core.trust.trial import failures_of

PIPELINE = "pipeline=qualify"
QUICK_STEPS = 4
COLUMNS = ("POOL", "ROLE", "VERDICT", "REASON")


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How thoroughly a pool is checked.

    `soak` seconds at the end, as the pipeline has it where `None`. There is no verdict where
    others use chips of the pool for longer than `patience`, in seconds.
    """

    quick: bool = False
    soak: float | None = None
    patience: float | None = None


IN_BETWEEN = Depth(quick=True, patience=60.0)  # something else waits for the verdict
# What a config.json says beside the fields of its model.
_NOT_OF_A_MODEL = frozenset(
    {
        *("architectures", "auto_map", "dtype", "model_type", "quantization_config"),
        *("torch_dtype", "transformers_version"),
    }
)
NO_MODEL: Mapping[str, Json] = MappingProxyType({})


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Qualify the pool that the command line names."""
    name, overrides = _named(args.overrides)
    args.overrides = [PIPELINE, *overrides]
    if composing.shown(args):
        return Exit.SUCCEEDED
    found = composing.settings(args)
    pool = _pool(found, name)
    asked = (Role(args.role),) if args.role else EARNED
    roles = tuple(role for role in asked if role in pool.allowed_roles)
    if not roles:
        takes = ", ".join(pool.allowed_roles)
        what = f"pool {name!r} does not take the role {args.role or 'train'!r}"
        raise ConfigError([Problem("--role", what, f"roles that it takes: {takes}")])
    depth, of = Depth(quick=args.quick, soak=args.soak), _model_of(args)
    what = f"run the checks of pool {name} to {' and '.join(roles)}, and keep the verdict"
    return [Step(what, lambda: conclude(*qualify(found, pool, roles, depth, of)))]


def conclude(final: Run, verdicts: Sequence[Verdict]) -> Exit:
    """Print the verdicts, and return the exit code that tells them."""
    if not verdicts:
        print("No verdict: what ended the run says nothing of the pool.")
        return of_state(final.state)
    show(verdicts)
    refused = any(one.standing is Standing.REFUSED for one in verdicts)
    return Exit.FAILED if refused else Exit.SUCCEEDED


def qualify(
    found: Settings,
    pool: Pool,
    roles: Sequence[Role],
    depth: Depth,
    of: Mapping[str, Json] = NO_MODEL,
) -> tuple[Run, tuple[Verdict, ...]]:
    """Run the checks of `pool`, keep the verdicts, and return both.

    `found` is a config with `pipeline=qualify`; `of` has the parameters of the model.

    Raises:
        PlanError: The pool can't be used at all.
    """
    made = hydra_config.replaced(found.resolved, _words(pool, roles, depth, of))
    mine = replace(hydra_config.parse(_without_gang(made, roles)), overrides=found.overrides)
    mine = replace(mine, fleet=without_others(mine.fleet, mine.pipeline))
    final, nodes = _drive(mine, pool)
    verdicts = _verdicts(mine, pool, roles, final)
    store = wiring.event_store(wiring.home())
    for one in verdicts:
        store.note_verdict(replace(one, nodes=_measured(final, nodes)))
    return final, verdicts


def _measured(final: Run, live: Mapping[str, str]) -> dict[str, str]:
    """Return those of the `live` nodes of a pool on which the stage `nodes` was."""
    placed = {name for one in final.stages["nodes"].attempts for name in one.nodes}
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
    common: dict[str, Json] = {"roles": [str(one) for one in roles], "quick": depth.quick}
    steps: dict[str, Json] = {"steps": QUICK_STEPS} if depth.quick else {}
    soak = 0.0 if depth.quick and depth.soak is None else depth.soak
    lasting: dict[str, Json] = {} if soak is None else {"soak_seconds": soak}
    formats: dict[str, Json] = {"formats": list(chip.computes or chip.formats)}
    nodes: dict[str, Json] = {
        "devices": pool.devices_per_node,
        "bf16_tflops": chip.bf16_tflops,
        "bandwidth_tbs": chip.bandwidth_tbs,
        "diagnostic": list(chip.diagnostic),
        "diagnostic_failed": chip.diagnostic_failed,
    }
    return {
        "reference": {**common, **steps},
        "nodes": {**common, **formats, **lasting, **nodes},
        "gang": {**common, **formats, **lasting, **steps},
    }


def _without_gang(config: Mapping[str, Json], roles: Sequence[Role]) -> Mapping[str, Json]:
    """Return the config without the stage that only training needs, where nobody trains."""
    pipeline = config["pipeline"]
    if Role.TRAIN in roles or not isinstance(pipeline, dict):
        return config
    stages = {name: one for name, one in pipeline["stages"].items() if name != "gang"}
    return {**config, "pipeline": {**pipeline, "stages": stages}}


def _drive(found: Settings, pool: Pool) -> tuple[Run, Mapping[str, str]]:
    """Return the run of the checks, and what the nodes of the pool are told apart by."""
    planned = wiring.plan(found)
    header = session.new_header(found, planned, f"qualify-{pool.name}", at=wiring.home())
    order = session.Order(found=found, header=header, at=wiring.home(), reuse=False)
    out = tables.console()
    with (
        LiveView(out, starting=session.starting(found)) as view,
        session.services(
            found, order.at, session.startable(found, planned), keep=lambda: False
        ) as addresses,
    ):
        out.print(f"\nRun [bold]{header.run}[/]")
        final = session.launch(order, addresses, view)
        launch.summarise(final, out.print)
        nodes = wiring.node_identities(found, order.at, {pool.name: pool})
    return final, nodes.get(pool.name, {})


def _verdicts(
    found: Settings, pool: Pool, roles: Sequence[Role], final: Run
) -> tuple[Verdict, ...]:
    failures = failures_of(final)
    if failures is None:
        return ()
    findings = (*failures, *wiring.findings(found, wiring.home(), final))
    now = wiring.clock().now()
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
            until=now + found.qualification.days * DAY,
        )
        for role, (standing, reasons) in judged.items()
    )


def show(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts with all their reasons."""
    rows = (
        (one.pool if first else "", str(one.role) if first else "", said, reason)
        for one in verdicts
        for first, said, reason in _lines(one)
    )
    out = tables.console()
    out.print()
    out.print(tables.table(COLUMNS, rows))


def _lines(verdict: Verdict) -> Iterator[tuple[bool, str, str]]:
    reasons = verdict.reasons or ("",)
    for number, reason in enumerate(reasons):
        yield number == 0, str(verdict.standing) if number == 0 else "", reason


# --- the command line ---------------------------------------------------------------------------


def _named(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the pool among `words`, and the overrides."""
    names = [word for word in words if "=" not in word and not word.startswith(("~", "+"))]
    if len(names) != 1:
        what = f"{len(names)} pools are named" if names else "no pool is named"
        raise ConfigError([Problem("qualify", what, "write qualify POOL")])
    return names[0], [word for word in words if word != names[0]]


def _pool(found: Settings, name: str) -> Pool:
    fleet = found.fleet
    if name not in fleet.pools:
        hint = choices(name, fleet.pools, "pools of this fleet")
        raise NotFoundError(f"{name!r} is not a pool of fleet {fleet.name!r}; {hint}")
    pool = fleet.pools[name]
    if not pool.devices:
        what = f"pool {name!r} has no chips"
        raise ConfigError([Problem("qualify", what, "there is nothing to qualify")])
    return pool


def _model_of(args: argparse.Namespace) -> Mapping[str, Json]:
    """Return the parameters of the model that the pipeline `--model-of` trains.

    Raises:
        NotFoundError: It goes on from a model that no run has made yet.
    """
    if not args.model_of:
        return NO_MODEL
    found = wiring.settings([f"pipeline={args.model_of}"], args.config_dir, args.config_name)
    training = next((one for one in found.pipeline.stages if one.role is Role.TRAIN), None)
    if training is None:
        what = f"pipeline {args.model_of!r} trains no model"
        raise ConfigError([Problem("--model-of", what, "name one with a stage of role 'train'")])
    known = {k: v for k, v in training.params.items() if k in {"architecture", "model"}}
    source = training.inputs.get("model")
    if known or source is None:
        return known
    config = wiring.config_of_last(found, source)
    if not config:
        said = f"stage {source!r} of pipeline {args.model_of!r}, whose model it trains, has no run"
        way = f"`orchestrator launch pipeline={args.model_of}` makes it"
        raise NotFoundError(f"{said}; {way}")
    return told_by(config)


def told_by(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the parameters of jobs that describe the model of a `config.json`."""
    fields = {k: v for k, v in config.items() if k not in _NOT_OF_A_MODEL and k[0] != "_"}
    return {"architecture": config["model_type"], "model": fields}


def first(found: Settings, pool: Pool, role: Role) -> None:
    """Qualify a pool, in short, before it is used by the config `found`; show the verdict."""
    pipeline = wiring.settings([PIPELINE]).resolved["pipeline"]
    checks = hydra_config.parse({**found.resolved, "pipeline": pipeline})
    final, verdicts = qualify(checks, pool, (role,), IN_BETWEEN)
    conclude(final, verdicts)
