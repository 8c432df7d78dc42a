"""Serve on other hardware, live: what an earlier run made is kept, and its endpoints move.

A run of its own: what the earlier run made is kept, but for what another pool needs otherwise, as
a model in another format. Its endpoints are deployed beside what serves now, on the pool that is
asked for; then the traffic moves in steps. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

from orchestrator import wiring
from orchestrator.core.artifact import ShippedCode
from orchestrator.core.endpoints.life import EndpointLife, Revision, RevisionState
from orchestrator.core.errors import ConfigError, NotFoundError, PlanError, Problem
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.runs.states import StageState
from orchestrator.core.settings import Settings
from orchestrator.core.spec.capacity import fewest_nodes
from orchestrator.core.spec.checks import spread_problems
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.policy import Rollout
from orchestrator.core.spec.stages import Endpoint, Json, Needs, Weights
from orchestrator.core.trust.qualification import Verdict, unknown
from orchestrator.messages import Succeeded
from orchestrator.service import driving, runs
from orchestrator.service.change import Change
from orchestrator.service.endpoints import give_all, served_life
from orchestrator.service.qualifying import Qualification, in_short
from orchestrator.service.switch_overrides import in_full

Judged: TypeAlias = Callable[[Run, Sequence[Verdict]], object]
WITHOUT_FALLBACK = f"fallbacks.{Role.SERVE}=[]"  # who asks for a pool wants that one


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be served: what `run` has made, as `overrides` change it.

    `weights` are served in the place of the model that the run made.
    """

    run: Run
    overrides: tuple[str, ...]
    weights: Weights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A switch that is planned: a run `name-...` that nobody has started.

    `kept_results` stand as they are, with the run that made them. `code` is that of the earlier
    run, where its folders are not here to be shipped anew. `first` are the pools to be
    qualified before, since no verdict on them holds. `unqualified` asks for no verdict.
    """

    settings: Settings
    plan: Plan
    name: str
    lines: Sequence[str]
    kept_results: Mapping[str, tuple[Succeeded, str]]
    code: ShippedCode | None = None
    first: Sequence[Qualification] = ()
    unqualified: bool = False

    @property
    def what(self) -> str:
        """What it would do, in lines."""
        why = "no verdict on it holds"
        first = [f"qualify {asked.pool.name} to {asked.roles[0]}: {why}" for asked in self.first]
        return "\n".join([*first, *self.lines])

    def run(self, view: driving.View, judged: Judged = lambda _run, _verdicts: None) -> Run:
        """Qualify what is to be first, then move the endpoints; return the run as it ended.

        `judged` hears of each run of checks, and of its verdicts.

        Raises:
            PlanError: A pool was refused, or is not qualified.
        """
        for checks in self.first:
            judged(*checks.run(view))
        return self._move(view)

    def _move(self, view: driving.View) -> Run:
        vetted = wiring.vetted(
            self.settings, self.plan, unqualified=self.unqualified, roles=(Role.SERVE,)
        )
        if vetted.problems:
            raise PlanError(vetted.problems)
        home = wiring.home()
        header = driving.new_header(self.settings, vetted.plan, self.name, home=home)
        code = wiring.ship(self.settings, home, header.run, self.code)
        header = replace(header, code=code)
        request = driving.DriveRequest(
            settings=self.settings, header=header, home=home, kept_results=self.kept_results
        )
        return driving.drive(request, view, new=True, keep=lambda _: True)


def switch(
    name: str, overrides: Sequence[str], *, unqualified: bool = False, qualify: bool = True
) -> Switch:
    """Move what an endpoint or a run serves to other hardware.

    `pool=X` is short for the serve role; `qualify` has the new pool qualified first where no
    verdict on it holds.

    Raises:
        ConfigError: Nothing is to change, or something that is not there.
        NotFoundError: There is no such endpoint or run.
        PlanError: It can't be served there.
    """
    if not overrides:
        raise ConfigError([Problem("switch", "nothing is to change", "write pool=POOL")])
    source = source_of(name, overrides)
    return plan_switch(source, name="switch", unqualified=unqualified, qualify=qualify)


def deploy(name: str, overrides: Sequence[str], *, unqualified: bool = False) -> Switch:
    """Add a revision to an endpoint, without traffic: what it serves, or what a run has made.

    Raises:
        ConfigError: The run has no stage with an endpoint.
        NotFoundError: There is no such endpoint or run.
        PlanError: It can't be served there.
    """
    source = source_of(name, overrides)
    stages = source.run.stages.items()
    serving = [stage for stage, stage_run in stages if stage_run.planned.stage.endpoint]
    if not serving:
        what = f"run {source.run.header.run!r} has no stage with an endpoint"
        raise ConfigError([Problem("deploy", what, "name one that serves")])
    quiet = (f"pipeline.stages.{stage}.endpoint.rollout.steps=[]" for stage in serving)
    source = Source(source.run, (*source.overrides, *quiet), source.weights)
    return plan_switch(source, name="deploy", unqualified=unqualified)


@dataclass(frozen=True, slots=True)
class Rollback:
    """The way back to the revision before: at once, or by deploying its model anew."""

    earlier: Revision
    at_once: Change[None] | None = None
    anew: Switch | None = None


def rollback(endpoint: str) -> Rollback:
    """Give all traffic of an endpoint back to the revision before.

    Raises:
        NotFoundError: The endpoint is not served, or has no revision before.
        PlanError: Its model can't be deployed anew.
    """
    life = served_life(endpoint)
    ready = _ready_before(life)
    if ready is not None:
        return Rollback(ready, at_once=give_all(life, ready))
    before = life.before
    if before is None or before.deployment is None:
        name = life.leading.name if life.leading else ""
        raise NotFoundError(f"endpoint {life.name!r} has no revision before {name}")
    rules = f"pipeline.stages.{before.deployment.stage}.endpoint.rollout"
    run = run_of(life, before.number)
    words = in_full([f"pool={before.pool}", f"{rules}={{steps: [100], hold: 0}}"], run, life.name)
    source = Source(run, words, weights_of(before))
    anew = plan_switch(source, name="rollback", unqualified=True)  # it has served there
    return Rollback(before, anew=anew)


def _ready_before(life: EndpointLife) -> Revision | None:
    """Return who led before, where it is ready; while a newer one is on its way, who leads now."""
    leading, before = life.leading, life.before
    if leading is not None and max(life.shares) > leading.number:
        return leading
    return before if before and before.state is RevisionState.READY else None


def plan_switch(
    source: Source, *, name: str, unqualified: bool = False, qualify: bool = False
) -> Switch:
    """Plan how to serve what a run has made by a run `name-...`.

    Raises:
        ConfigError: Something is to change that is not there.
        PlanError: It can't be served there.
    """
    earlier = source.run
    words = [WITHOUT_FALLBACK, *source.overrides]
    changed = wiring.configs.changed(earlier.header.config, words)
    settings = wiring.configs.parse(_with_weights(changed, source.weights, earlier))
    settings, code = wiring.with_code(settings, wiring.home(), earlier.header.code)
    planned = wiring.plan(settings)
    kept_results = kept_of(earlier, planned)
    problems = list(unserved(planned, earlier.header.run))
    problems += indivisible(planned, kept_results, wiring.storage_uri(settings, wiring.home()))
    lives = wiring.database(wiring.home()).endpoints()
    problems += crowded(planned, lives)
    if problems:
        raise PlanError(problems)
    lines = list(anew(planned, kept_results))
    for endpoint in (
        endpoint_stage.endpoint
        for endpoint_stage in settings.pipeline.stages
        if endpoint_stage.endpoint
    ):
        lines += rollout(endpoint, lives.get(endpoint.name, EndpointLife(name=endpoint.name)))
    return Switch(
        settings=settings,
        plan=planned,
        name=name,
        lines=lines,
        kept_results=kept_results,
        code=code,
        first=_unproven(settings, planned) if qualify and not unqualified else (),
        unqualified=unqualified,
    )


def _unproven(settings: Settings, planned: Plan) -> Sequence[Qualification]:
    """Return the checks of the pools that serve, and of which no verdict holds."""
    pools = unknown(planned, wiring.verdicts(), wiring.time_of_verdicts(), (Role.SERVE,))
    return [in_short(settings, planned.pools[pool], role) for pool, role in pools]


def _with_weights(
    config: Mapping[str, Json], weights: Weights | None, earlier: Run
) -> Mapping[str, Json]:
    """Return a config whose endpoint serves `weights`; those of an earlier switch are gone."""
    value = asdict(weights) if weights else None
    serving = (
        planned_stage.stage
        for planned_stage in earlier.plan.stages
        if planned_stage.stage.endpoint
    )
    paths = [f"pipeline.stages.{stage.name}.endpoint.weights" for stage in serving]
    return wiring.configs.replaced(config, [(path, value) for path in paths])


def unserved(planned: Plan, run: str) -> Iterator[Problem]:
    """Yield why what a live update put in the place of a model can't be served on a pool."""
    for planned_stage in planned.stages:
        weights = planned_stage.stage.endpoint.weights if planned_stage.stage.endpoint else None
        if weights is not None and planned_stage.formats[0] != weights.format:
            what = (
                f"{weights.version} is {weights.format}, and pool "
                f"{planned_stage.pools[0]!r} serves {planned_stage.formats[0]}"
            )
            hint = f"`switch {run} pool={planned_stage.pools[0]}` serves what that run has made"
            yield Problem(
                f"pipeline.stages.{planned_stage.stage.name}.endpoint.weights", what, hint
            )


def kept_of(earlier: Run, planned: Plan) -> dict[str, tuple[Succeeded, str]]:
    """Return what of run `earlier` stands in a new one that is `planned`, with the run it is from.

    That is what stages made which are the same in both, and read the same. What was made on the
    pool that serves does not stand for another one.
    """
    kept_results: dict[str, tuple[Succeeded, str]] = {}
    for new in planned.stages:
        old = earlier.stages.get(new.stage.name)
        reads = new.stage.inputs.values()
        if old and _stands(old, new) and all(name in kept_results for name in reads):
            result = Succeeded(old.artifact, old.metrics, old.pool, old.adjust)
            kept_results[new.stage.name] = (result, earlier.header.run)
    return kept_results


def _stands(old: StageRun, new: PlannedStage) -> bool:
    before, after = old.planned.stage, new.stage
    same = (before.job, before.params, before.inputs) == (after.job, after.params, after.inputs)
    served_here = after.role is not Role.SERVE or old.pool == new.pools[0]
    return old.state is StageState.SUCCEEDED and after.endpoint is None and same and served_here


def indivisible(
    planned: Plan, kept_results: Mapping[str, tuple[Succeeded, str]], storage: str
) -> Iterator[Problem]:
    """Yield why models that are there can't be spread over the chips of a replica."""
    for planned_stage in planned.stages:
        endpoint, pool = planned_stage.stage.endpoint, planned.pools[planned_stage.pools[0]]
        if endpoint is None or endpoint.server is None:
            continue
        known = kept_results.get(planned_stage.stage.inputs.get(endpoint.model, ""))
        if known is not None and known[0].artifact is not None:
            config = wiring.model_config(storage, known[0].artifact)
            yield from spread_problems(planned_stage.stage.on_pool(pool.name), pool, config)


def crowded(planned: Plan, lives: Mapping[str, EndpointLife]) -> Iterator[Problem]:
    """Yield why a pool never has room for a revision beside those that it is to replace.

    They keep their chips until the traffic has moved, so waiting for them would never end.
    """
    for planned_stage in planned.stages:
        endpoint, pool = planned_stage.stage.endpoint, planned.pools[planned_stage.pools[0]]
        if endpoint is None or endpoint.name not in lives:
            continue
        deployments = [revision.deployment for revision in lives[endpoint.name].live]
        beside = [old for old in deployments if old is not None and old.pool.name == pool.name]
        kept_results = [d for old in beside for d in _chips(old.needs, old.endpoint)]
        asked = _chips(planned_stage.stage.needs, endpoint.on(pool.name))
        if not sum(kept_results) or fewest_nodes(pool, [*kept_results, *asked]) <= pool.nodes:
            continue
        needed, had, all_of_them, called = sum(asked), sum(kept_results), pool.devices, "devices"
        if needed + had <= all_of_them:  # enough of them, but no whole nodes are left
            needed, had = fewest_nodes(pool, asked), fewest_nodes(pool, kept_results)
            all_of_them, called = pool.nodes, "nodes"
        names = ", ".join(f"r{old.revision}" for old in beside)
        what = (
            f"needs {needed!r} of the {all_of_them!r} {called} of {pool.name!r}, of which "
            f"{names} of {endpoint.name!r} keeps {had!r} until the traffic has moved"
        )
        hint = "ask for fewer, or switch to another pool first"
        yield Problem(f"pipeline.stages.{planned_stage.stage.name}.needs.devices", what, hint)


def _chips(needs: Needs, endpoint: Endpoint) -> list[int]:
    """Return how many chips each replica has."""
    return [needs.devices] * max(endpoint.replicas, 1)


def anew(planned: Plan, kept_results: Mapping[str, object]) -> list[str]:
    """Return which jobs run anew, in a line each."""
    return [
        f"run {name} anew on {planned_stage.pools[0]}: an earlier result does not serve here"
        for planned_stage in planned.stages
        if planned_stage.stage.job and (name := planned_stage.stage.name) not in kept_results
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


def source_of(name: str, overrides: Sequence[str]) -> Source:
    """Return what an endpoint serves, or what a run has made, with `overrides` in full.

    Raises:
        NotFoundError: There is no such endpoint or run.
    """
    lives = wiring.database(wiring.home()).endpoints()
    if name in lives:
        run, weights = run_of(lives[name]), weights_of(lives[name].leading)
        return Source(run, in_full(overrides, run, name), weights)
    try:
        run = runs.find(name)
    except NotFoundError as error:
        served = ", ".join(sorted(n for n, life in lives.items() if life.shares)) or "none"
        raise NotFoundError(f"no endpoint {name!r} (served: {served}), and {error}") from None
    return Source(run, in_full(overrides, run))


def weights_of(revision: Revision | None) -> Weights | None:
    """Return what a revision serves in the place of the model that its run has made."""
    deployment = revision.deployment if revision else None
    if deployment is None or not deployment.version:
        return None
    model = deployment.model
    return Weights(
        uri=model.uri, digest=model.digest, version=deployment.version, format=deployment.format
    )


def run_of(life: EndpointLife, number: int | None = None) -> Run:
    """Return the run that deployed the revision that leads, or revision `number`.

    Raises:
        NotFoundError: There is none, or it runs outside.
    """
    served = life.leading if number is None else life.revisions.get(number)
    if served is None or served.deployment is None:
        what = "has no revision of ours that serves"
        raise NotFoundError(f"endpoint {life.name!r} {what}; `orchestrator endpoints` lists all")
    return runs.find(served.deployment.run)
