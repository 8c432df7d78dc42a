"""`orchestrator switch ENDPOINT pool=POOL`, or `switch RUN KEY=VALUE...`: other hardware, live.

A run of its own: what the earlier run made is kept, but for what another pool needs otherwise, as
a model in another format. Its endpoints are deployed beside what serves now, on the pool that is
asked for; then the traffic moves in steps. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial

from orchestrator import session, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import launch, plan, qualify, runs, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints.life import EndpointLife, Revision
from orchestrator.core.errors import ConfigError, NotFoundError, PlanError, Problem
from orchestrator.core.runs.run import Run, RunHeader, StageRun
from orchestrator.core.runs.states import StageState
from orchestrator.core.settings import Settings
from orchestrator.core.spec.capacity import fewest_nodes
from orchestrator.core.spec.checks import spread_problems
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.policy import Rollout
from orchestrator.core.spec.stages import Endpoint, Json, Needs, Weights
from orchestrator.core.trust.qualification import unknown
from orchestrator.messages import Succeeded

WITHOUT_FALLBACK = f"fallbacks.{Role.SERVE}=[]"  # who asks for a pool wants that one


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Move what NAME serves to other hardware."""
    if not args.overrides:
        raise ConfigError([Problem("switch", "nothing is to change", "write pool=POOL")])
    made, words, weights = source(args.name, args.overrides)
    way = Way(unqualified=args.unqualified, qualify=not args.no_qualify, weights=weights)
    return steps_of(made, words, way, name="switch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to go about it.

    `unqualified` asks for no verdict, `qualify` has the new pool qualified first where no verdict
    holds. `weights` are served in the place of the model that the run made.
    """

    unqualified: bool = False
    qualify: bool = False
    weights: Weights | None = None


def steps_of(made: Run, overrides: Sequence[str], way: Way, *, name: str) -> Sequence[Step]:
    """Return how to serve what run `made` has made, with `overrides`, by a run `name-...`."""
    changed = hydra_config.changed(made.header.config, [WITHOUT_FALLBACK, *overrides])
    found = hydra_config.parse(_with_weights(changed, way.weights, made))
    planned = wiring.plan(found)
    kept = kept_of(made, planned)
    problems = list(unserved(planned, made.header.run))
    problems += list(indivisible(planned, kept, wiring.storage_uri(found, wiring.home())))
    lives = wiring.endpoint_store(wiring.home()).endpoints()
    problems += list(crowded(planned, lives))
    if problems:
        raise PlanError(problems)
    plan.show(planned, tables.console().print)
    unproven = _unproven(planned) if way.qualify and not way.unqualified else ()
    first = [
        Step(
            f"qualify {pool} to {role}: no verdict on it holds",
            partial(qualify.first, found, planned.pools[pool], role),
            announced=True,
        )
        for pool, role in unproven
    ]
    lines = list(anew(planned, kept))
    for stage in found.pipeline.stages:
        if stage.endpoint:
            name_of = stage.endpoint.name
            lines += rollout(stage.endpoint, lives.get(name_of, EndpointLife(name=name_of)))
    go = partial(_go, found, planned, way, kept, name)
    return [*first, Step("\n".join(lines), go, announced=True)]


def _with_weights(
    config: Mapping[str, Json], weights: Weights | None, made: Run
) -> Mapping[str, Json]:
    """Return a config whose endpoint serves `weights`; those of an earlier switch are gone."""
    value = asdict(weights) if weights else None
    serving = (one.stage for one in made.plan.stages if one.stage.endpoint)
    paths = [f"pipeline.stages.{stage.name}.endpoint.weights" for stage in serving]
    return hydra_config.replaced(config, [(path, value) for path in paths])


def unserved(planned: Plan, run: str) -> Iterator[Problem]:
    """Yield why what a live update put in the place of a model can't be served on a pool."""
    for one in planned.stages:
        weights = one.stage.endpoint.weights if one.stage.endpoint else None
        if weights is not None and one.formats[0] != weights.format:
            what = (
                f"{weights.version} is {weights.format}, and pool {one.pools[0]!r} serves "
                f"{one.formats[0]}"
            )
            hint = f"`switch {run} pool={one.pools[0]}` serves what that run has made"
            yield Problem(f"pipeline.stages.{one.stage.name}.endpoint.weights", what, hint)


def _go(
    found: Settings, planned: Plan, way: Way, kept: Mapping[str, tuple[Succeeded, str]], name: str
) -> Exit:
    header = session.new_header(found, _earned(found, planned, way), name, at=wiring.home())
    return _drive(found, header, kept)


def _unproven(planned: Plan) -> Sequence[tuple[str, Role]]:
    """Return the pools that serve, and of which no verdict holds."""
    return unknown(planned, wiring.verdicts(), wiring.clock().now(), (Role.SERVE,))


def _earned(found: Settings, planned: Plan, way: Way) -> Plan:
    """Return the plan with pools that may serve.

    Raises:
        PlanError: The pool was refused, or is not qualified.
    """
    vetted = wiring.vetted(found, planned, unqualified=way.unqualified, roles=(Role.SERVE,))
    if vetted.problems:
        raise PlanError(vetted.problems)
    return vetted.plan


def _drive(found: Settings, header: RunHeader, kept: Mapping[str, tuple[Succeeded, str]]) -> Exit:
    order = session.Order(found=found, header=header, at=wiring.home(), kept=kept)
    pools = session.startable(found, header.plan)
    out = tables.console()
    with (
        LiveView(out, starting=session.starting(found)) as view,
        session.services(found, order.at, pools, keep=lambda: True) as addresses,
    ):
        out.print(f"\nRun [bold]{header.run}[/]")
        final = session.launch(order, addresses, view)
        launch.summarise(final, out.print)
    return of_state(final.state)


def kept_of(made: Run, planned: Plan) -> dict[str, tuple[Succeeded, str]]:
    """Return what of run `made` stands in a new one that is `planned`, with the run it is from.

    That is what stages made which are the same in both, and read the same. What was made on the
    pool that serves does not stand for another one.
    """
    kept: dict[str, tuple[Succeeded, str]] = {}
    for new in planned.stages:
        old = made.stages.get(new.stage.name)
        reads = new.stage.inputs.values()
        if old and _stands(old, new) and all(name in kept for name in reads):
            result = Succeeded(old.artifact, old.metrics, old.pool, old.adjust)
            kept[new.stage.name] = (result, made.header.run)
    return kept


def _stands(old: StageRun, new: PlannedStage) -> bool:
    before, after = old.planned.stage, new.stage
    same = (before.job, before.params, before.inputs) == (after.job, after.params, after.inputs)
    there = after.role is not Role.SERVE or old.pool == new.pools[0]
    return old.state is StageState.SUCCEEDED and after.endpoint is None and same and there


def indivisible(
    planned: Plan, kept: Mapping[str, tuple[Succeeded, str]], storage: str
) -> Iterator[Problem]:
    """Yield why models that are there can't be spread over the chips of a replica."""
    for one in planned.stages:
        endpoint, pool = one.stage.endpoint, planned.pools[one.pools[0]]
        if endpoint is None or endpoint.server is None:
            continue
        known = kept.get(one.stage.inputs.get(endpoint.model, ""))
        if known is not None and known[0].artifact is not None:
            config = wiring.model_config(storage, known[0].artifact)
            yield from spread_problems(one.stage.on(pool.name), pool, config)


def crowded(planned: Plan, lives: Mapping[str, EndpointLife]) -> Iterator[Problem]:
    """Yield why a pool never has room for a revision beside those that it is to replace.

    They keep their chips until the traffic has moved, so waiting for them would never end.
    """
    for one in planned.stages:
        endpoint, pool = one.stage.endpoint, planned.pools[one.pools[0]]
        if endpoint is None or endpoint.name not in lives:
            continue
        made = [revision.deployment for revision in lives[endpoint.name].live]
        beside = [old for old in made if old is not None and old.pool.name == pool.name]
        kept = [d for old in beside for d in _chips(old.needs, old.endpoint)]
        asked = _chips(one.stage.needs, endpoint.on(pool.name))
        if not sum(kept) or fewest_nodes(pool, [*kept, *asked]) <= pool.nodes:
            continue
        needed, had, all_of_them, called = sum(asked), sum(kept), pool.devices, "devices"
        if needed + had <= all_of_them:  # enough of them, but no whole nodes are left
            needed, had = fewest_nodes(pool, asked), fewest_nodes(pool, kept)
            all_of_them, called = pool.nodes, "nodes"
        names = ", ".join(f"r{old.revision}" for old in beside)
        what = (
            f"needs {needed!r} of the {all_of_them!r} {called} of {pool.name!r}, of which "
            f"{names} of {endpoint.name!r} keeps {had!r} until the traffic has moved"
        )
        hint = "ask for fewer, or switch to another pool first"
        yield Problem(f"pipeline.stages.{one.stage.name}.needs.devices", what, hint)


def _chips(needs: Needs, endpoint: Endpoint) -> list[int]:
    """Return how many chips each replica has."""
    return [needs.devices] * max(endpoint.replicas, 1)


def anew(planned: Plan, kept: Mapping[str, object]) -> list[str]:
    """Return which jobs run anew, in a line each."""
    return [
        f"run {one.stage.name} anew on {one.pools[0]}: an earlier result does not serve here"
        for one in planned.stages
        if one.stage.job and one.stage.name not in kept
    ]


def rollout(endpoint: Endpoint, life: EndpointLife) -> list[str]:
    """Return what a rollout of the endpoint would do, step by step."""
    new, leading = f"r{life.next_number}", life.leading
    lines = [f"deploy {endpoint.name}.{new}, wait until all its replicas answer"]
    if leading is None:
        return [*lines, f"give it all traffic of {endpoint.name!r}"]
    rules = endpoint.rollout
    lines.append(f"compare its answers with those of {leading.name} (same model, or own probes)")
    if rules.overflow:
        return [*lines, "give it what finds no room elsewhere"]
    lines += [_step(new, share, rules) for share in rules.steps]
    if rules.steps:
        return [*lines, f"retire {leading.name} on {leading.pool}, its streams end first"]
    return [*lines, "leave all traffic where it is: `orchestrator traffic` moves it"]


def _step(new: str, share: int, rules: Rollout) -> str:
    return (
        f"give {new} {share} % of the traffic for {rules.hold:g} s; back at once if errors rise "
        f"by {rules.error_rate:.0%} or times {rules.slower:g}-fold"
    )


def source(name: str, overrides: Sequence[str]) -> tuple[Run, list[str], Weights | None]:
    """Return the run to start from, its overrides, and what serves in the place of its model.

    `pool=X` is short for the serve role. Of a run that is named what it has made is served.
    """
    at = wiring.home()
    store = wiring.event_store(at)
    lives = wiring.endpoint_store(at).endpoints()
    if name in lives:
        made = run_of(lives[name])
        return made, [_longer(word, made) for word in overrides], weights_of(lives[name].leading)
    try:
        made = runs.load(store, store.header(name))
        return made, [_longer(word, made) for word in overrides], None
    except NotFoundError as error:
        served = ", ".join(sorted(n for n, life in lives.items() if life.shares)) or "none"
        raise NotFoundError(f"no endpoint {name!r} (served: {served}), and {error}") from None


def weights_of(revision: Revision | None) -> Weights | None:
    """Return what a revision serves in the place of the model that its run has made."""
    made = revision.deployment if revision else None
    if made is None or not made.version:
        return None
    model = made.model
    return Weights(uri=model.uri, digest=model.digest, version=made.version, format=made.format)


def run_of(life: EndpointLife, number: int | None = None) -> Run:
    """Return the run that deployed the revision that leads, or revision `number`.

    Raises:
        NotFoundError: There is none, or it runs outside.
    """
    found = life.leading if number is None else life.revisions.get(number)
    if found is None or found.deployment is None:
        what = "has no revision of ours that serves"
        raise NotFoundError(f"endpoint {life.name!r} {what}; `orchestrator endpoints` lists all")
    store = wiring.event_store(wiring.home())
    return runs.load(store, store.header(found.deployment.run))


def _longer(word: str, made: Run) -> str:
    """Return an override in full: a pool serves, and `error_rate=1e-3` is of the rollout."""
    key, equals, value = word.partition("=")
    if key == "pool" and equals:
        return f"roles.{Role.SERVE}={value}"
    serving = [name for name, stage in made.stages.items() if stage.planned.stage.endpoint]
    if key in {field.name for field in fields(Rollout)} and len(serving) == 1:
        return f"pipeline.stages.{serving[0]}.endpoint.rollout.{word}"
    return word
