"""What is kept beside runs and endpoints: pools, verdicts, models, sums, and this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

from rich.console import Group, RenderableType

from orchestrator.client.running import LiveRun
from orchestrator.client.shown import Shown
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.nearest import choices
from orchestrator.core.runs.retention import Retention
from orchestrator.core.spec.hardware import Fleet, Pool, Role
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.core.trust.model_versions import ModelVersion
from orchestrator.core.trust.qualification import Verdict
from orchestrator.display import pools as display
from orchestrator.messages import UnusedNode
from orchestrator.service import deploying, driving, qualifying, switching
from orchestrator.service import doctor as machine
from orchestrator.service import models as registry
from orchestrator.service import pools as pools_of_fleet
from orchestrator.service.check import Check
from orchestrator.service.collecting import Collected, Kind, collect
from orchestrator.service.cost import Cost
from orchestrator.service.cost import cost as sums
from orchestrator.service.planning import ConfigSource


class LivePools(Shown):
    """The pools of a fleet, as they were when they were asked for."""

    def __init__(self, states: pools_of_fleet.PoolStates) -> None:
        """Show what is known of them."""
        self._states = states

    def __getitem__(self, name: str) -> Pool:
        """Return the pool of that name.

        Raises:
            NotFoundError: There is none.
        """
        return pools_of_fleet.pool_of(self._states.fleet, name)

    @property
    def status(self) -> Mapping[str, str]:
        """Whether each pool can be used, in a few words."""
        return {name: self._states.status(pool) for name, pool in self._pools.items()}

    @property
    def verdicts(self) -> Mapping[str, Mapping[Role, Verdict]]:
        """The verdicts that hold for each pool, by role."""
        return {name: self._states.verdicts_of(pool) for name, pool in self._pools.items()}

    @property
    def unused(self) -> Sequence[UnusedNode]:
        """The nodes that are not to be used: drained, or in quarantine."""
        return self._states.unused

    @property
    def _pools(self) -> Mapping[str, Pool]:
        return self._states.fleet.pools

    def __rich__(self) -> RenderableType:
        """Return the pools, their nodes where a cluster is up, and what waits for them."""
        shown = [display.of_nodes(self._states), display.of_queue(self._states)]
        filled = (table for table in shown if table.rows)
        return Group(f"Fleet {self._states.fleet.name}", display.table(self._states), *filled)


def pools(
    *overrides: str, fleet: Fleet | None = None, config_dir: str | Path | None = None
) -> LivePools:
    """Return the pools of a fleet; their live state too, where the cluster is up.

    Raises:
        ConfigError: With all problems of the config.
    """
    source = _source(overrides, config_dir, fleet)
    return LivePools(pools_of_fleet.pools(source.settings()))


def drain(
    pool: str,
    *overrides: str,
    reason: str,
    node: str = "",
    config_dir: str | Path | None = None,
) -> None:
    """Have a pool, or a `node` of it, take no new attempts; those on it leave in good order.

    Raises:
        NotFoundError: The fleet has no such pool.
    """
    settings = _source(overrides, config_dir).settings()
    pools_of_fleet.drain(pools_of_fleet.place_of(settings, pool, node), reason).make()


def undrain(
    pool: str, *overrides: str, node: str = "", config_dir: str | Path | None = None
) -> None:
    """Have a pool, or a `node` of it, take attempts again.

    Raises:
        NotFoundError: The fleet has no such pool.
    """
    settings = _source(overrides, config_dir).settings()
    pools_of_fleet.undrain(pools_of_fleet.place_of(settings, pool, node)).make()


def qualify(
    pool: str,
    *overrides: str,
    role: Role | None = None,
    quick: bool = False,
    soak: float | None = None,
    model_of: str | None = None,
    config_dir: str | Path | None = None,
) -> tuple[LiveRun, Sequence[Verdict]]:
    """Find out what a pool can do, and keep the verdicts; return the run and them.

    Of each role that has to be earned, or of `role` alone. `quick` checks less, `soak` are the
    seconds of load at the end, `model_of` the pipeline whose model is computed. There is no
    verdict where what ended the run says nothing of the pool.

    Raises:
        ConfigError: The pool has no chips, or does not take the role.
        NotFoundError: There is no such pool.
        PlanError: The pool can't be used at all.
    """
    depth = qualifying.Depth(quick=quick, soak=soak)
    source = _source(overrides, config_dir)
    checks = qualifying.qualify(source, pool, role=role, depth=depth, model_of=model_of)
    run, verdicts = checks.run(driving.Unseen())
    return LiveRun(run.header.run), verdicts


def deploy(run: str, *overrides: str, unqualified: bool = False) -> LiveRun:
    """Serve what a run has made, as a revision without traffic; return the run that did it.

    Raises:
        ConfigError: The run has no stage with an endpoint.
        NotFoundError: There is no such run.
        PlanError: It can't be served there.
    """
    planned = switching.deploy(run, overrides, unqualified=unqualified)
    return LiveRun(planned.run(driving.Unseen()).header.run)


def deploy_outside(endpoint: str, server: Outside) -> Sequence[str]:
    """Add an OpenAI-compatible server that somebody else runs, as a revision of an endpoint.

    The first revision gets all traffic; what keeps one from that is returned, in lines.

    Raises:
        ConfigError: With all that is wrong with the name, the address, the key or a header.
        ServingError: The server does not answer.
    """
    added = deploying.deploy_outside(endpoint, server)
    added.change.make()
    return added.notes


def models(name: str = "") -> Sequence[ModelVersion]:
    """Return the versions of all models that endpoints serve, or of one, newest first."""
    return registry.versions(name)


def promote(model: str, version: int | None = None, *, force: str = "") -> ModelVersion:
    """Make a version, or the candidate, the champion of its model, and return it.

    Raises:
        NotFoundError: There is no such version.
        ConfigError: It was not seen to do what was trained, and `force` does not say why it may.
    """
    return registry.promote(model, version, force=force).make()


def cost(by: Sequence[str] = ("endpoint", "key", "pool", "day"), *, days: float = 30.0) -> Cost:
    """Return what endpoints were used for, summed up `by` those fields, and what they held.

    Raises:
        ConfigError: A field is none.
    """
    return sums(by, days)


@overload
def gc(
    kinds: Collection[str] = ...,
    *,
    newest: int = ...,
    days: float = ...,
    resumable: bool = ...,
    dry_run: Literal[False] = ...,
) -> Collected: ...


@overload
def gc(
    kinds: Collection[str] = ...,
    *,
    newest: int = ...,
    days: float = ...,
    resumable: bool = ...,
    dry_run: Literal[True],
) -> Sequence[str]: ...


def gc(
    kinds: Collection[str] = tuple(Kind),
    *,
    newest: int = 20,
    days: float = 30.0,
    resumable: bool = False,
    dry_run: bool = False,
) -> Collected | Sequence[str]:
    """Remove what nobody needs any more, and return how much that was.

    The `newest` runs that are over stay, those that ended in the last `days`, and those that can
    be resumed unless `resumable` ones may go. `kinds` are some of `checkpoints`, `points`,
    `artifacts`, `runs`, `code` and `caches`. A `dry_run` returns what would go, in lines.

    Raises:
        ConfigError: A kind is none of these.
        TrackingError: The registry of models can't be asked what it uses.
    """
    unknown = [name for name in kinds if name not in frozenset(Kind)]
    if unknown:
        hint = choices(unknown[0], tuple(Kind), "kinds")
        raise ConfigError([Problem("kinds", f"{unknown[0]!r} is nothing to remove", hint)])
    rules = Retention(newest=newest, days=days, resumable=resumable)
    change = collect(rules, [Kind(name) for name in kinds], start=not dry_run)
    return change.what.splitlines() if dry_run else change.make()


def doctor(*overrides: str, config_dir: str | Path | None = None) -> Sequence[Check]:
    """Return the checks of this machine; with `overrides`, of the cluster that they name too."""
    named = overrides or config_dir
    return [*machine.checks(_source(overrides, config_dir) if named else None)]


def _source(
    overrides: Sequence[str], config_dir: str | Path | None, fleet: Fleet | None = None
) -> ConfigSource:
    return ConfigSource(tuple(overrides), Path(config_dir) if config_dir else None, fleet=fleet)
