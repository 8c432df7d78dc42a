"""A config: where it comes from, how it is composed, parsed and planned.

Everything that can be known without hardware is refused here, all problems of a config at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, TypeAlias, TypedDict

from orchestrator.core.address_passwords import holds_password, password_problems
from orchestrator.core.errors import ConfigError, PlanError, Problem, shown
from orchestrator.core.settings import Settings
from orchestrator.core.spec.command_stages import params_path, writes_to_mlflow
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.outside_servers import is_address
from orchestrator.core.spec.plan import Plan, make_plan
from orchestrator.core.spec.stages import Json, Pipeline
from orchestrator.wiring import storage, workdirs
from orchestrator.wiring.adapters import (
    TRACKING_ACCOUNT,
    TRACKING_VARIABLE,
    cluster_address,
    tracking_address,
)
from orchestrator.wiring.secret_values import secret_problems

PRIMARY = "config"
Part: TypeAlias = Literal["job", "hydra", "all"]


class _Place(TypedDict):
    config_dir: Path | None
    config_name: str


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """A config as somebody names it: `overrides` as Hydra has them, and where it lies.

    A `pipeline` or a `fleet` that was built in Python stands in the place of the one that is
    composed. Command line and Python interface make one; the use cases ask it for the rest.
    """

    overrides: tuple[str, ...] = ()
    config_dir: Path | None = None
    config_name: str = PRIMARY
    pipeline: Pipeline | None = None
    fleet: Fleet | None = None

    def settings(self) -> Settings:
        """Compose and parse it.

        Raises:
            ConfigError: With all problems.
        """
        from orchestrator.adapters import hydra_config

        return hydra_config.compose(self.overrides, **self._place, sections=self._built)

    def planned(self) -> tuple[Settings, Plan]:
        """Compose, parse and plan it at once, so that no problem hides another.

        Raises:
            ConfigError: With all problems, those of the plan too.
        """
        from orchestrator.adapters import hydra_config

        settings, problems = hydra_config.try_compose(
            self.overrides, **self._place, sections=self._built
        )
        if settings is None:
            raise ConfigError(problems)
        try:
            pipeline_plan = plan(settings)
        except PlanError as error:
            paths = {problem.path for problem in problems}  # once is enough
            more = (problem for problem in error.problems if problem.path not in paths)
            raise ConfigError([*problems, *_files(settings), *more]) from None
        problems += _files(settings)
        if problems:
            raise ConfigError(problems)
        return settings, pipeline_plan

    def changed(self, *overrides: str) -> Self:
        """Return the same with other overrides."""
        return replace(self, overrides=overrides)

    def combinations(self) -> Sequence[ConfigSource]:
        """Return one for each combination of a sweep.

        Raises:
            ConfigError: The sweep can't be composed.
        """
        from orchestrator.adapters import hydra_config

        swept = hydra_config.sweep(self.overrides, **self._place)
        return [self.changed(*overrides) for overrides in swept]

    def shown(self, part: Part, *, resolve: bool = False, package: str | None = None) -> str:
        """Return the config as YAML: `job`, `hydra` or `all` of it, or its part at `package`.

        Raises:
            ConfigError: It does not compose, or has no such part.
        """
        from orchestrator.adapters import hydra_config

        return hydra_config.show(
            part, self.overrides, **self._place, resolve=resolve, package=package
        )

    def composition(self, what: str) -> str:
        """Return what Hydra tells of the composition: its defaults list, tree, sources, plugins.

        Raises:
            ConfigError: It does not compose, or there is no such information.
        """
        from orchestrator.adapters import hydra_config

        return hydra_config.info(what, self.overrides, **self._place)

    @property
    def _built(self) -> Mapping[str, Json]:
        """The sections of it that were built in Python."""
        from orchestrator.adapters.hydra_config import built_sections

        pipeline = {"pipeline": built_sections.pipeline(self.pipeline)} if self.pipeline else {}
        return {**pipeline, "fleet": built_sections.fleet(self.fleet)} if self.fleet else pipeline

    @property
    def _place(self) -> _Place:
        return {"config_dir": self.config_dir, "config_name": self.config_name}

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of a command that choose the same in any folder, beside the overrides."""
        folder = ("--config-dir", str(self.config_dir.absolute())) if self.config_dir else ()
        name = ("--config-name", self.config_name) if self.config_name != PRIMARY else ()
        return *folder, *name


def settings(overrides: Sequence[str], config_dir: Path | None = None) -> Settings:
    """Compose and parse what `overrides` choose. Raises `ConfigError` with all problems."""
    return ConfigSource(tuple(overrides), config_dir).settings()


def planned(overrides: Sequence[str], config_dir: Path | None = None) -> tuple[Settings, Plan]:
    """Compose, parse and plan what `overrides` choose. Raises `ConfigError` with all problems."""
    return ConfigSource(tuple(overrides), config_dir).planned()


def _files(settings: Settings) -> Iterator[Problem]:
    """Yield what this host lacks, where it will run the gateway."""
    if any(stage.endpoint for stage in settings.pipeline.stages):
        from orchestrator.adapters import gateway_service

        yield from gateway_service.problems(settings.gateway)


def plan(settings: Settings) -> Plan:
    """Plan the pipeline and check its jobs, without importing them or touching hardware.

    Raises:
        PlanError: With every reason why it can't run.
    """
    from orchestrator.adapters import user_code

    problems = [*user_code.check(settings.pipeline, settings.jobs), *_unservable(settings)]
    cluster = cluster_address(settings)
    problems += list(_addresses(settings)) or [
        *storage.problems(settings, cluster),
        *storage.gate_problems(settings, cluster),
        *workdirs.problems(settings, cluster),
    ]
    problems += _untracked(settings)
    try:
        pipeline_plan = make_plan(
            settings.pipeline,
            settings.fleet,
            settings.bindings,
            seed=settings.seed,
            bounds=settings.bounds,
            priority=settings.priority,
        )
    except PlanError as error:
        raise PlanError([*error.problems, *problems]) from None
    problems += secret_problems(pipeline_plan)
    if problems:
        raise PlanError(problems)
    return pipeline_plan


def _unservable(settings: Settings) -> Iterator[Problem]:
    if settings.cluster.kind == "local":
        for stage in settings.pipeline.stages:
            if stage.endpoint:
                what = f"stage {stage.name!r} serves an endpoint, which needs Ray"
                yield Problem("cluster.kind", what, "set cluster=ray")


def _untracked(settings: Settings) -> Iterator[Problem]:
    """Yield each command that is to write to MLflow, where nothing does."""
    for stage in settings.pipeline.stages if not settings.tracking.enabled else ():
        if writes_to_mlflow(stage):
            what = "there is no MLflow to write to"
            hint = "take tracking=none away, or leave it out"
            yield Problem(f"{params_path(stage)}.mlflow", what, hint)


def _addresses(settings: Settings) -> Iterator[Problem]:
    """Yield each address that can be none, before a run gets a name that would be lost."""
    address, uri = cluster_address(settings), tracking_address(settings.tracking)
    if settings.cluster.kind == "ray" and address:
        from orchestrator.adapters.raycluster import access

        path = "cluster.address" if settings.cluster.address else "RAY_ADDRESS"
        if holds_password(address):
            yield from password_problems(path, address, access.NO_PASSWORD)
        elif not access.is_address(address):
            what = f"{shown(address)} is neither HOST:PORT of a Ray head node nor http://HOST:8265"
            yield Problem(path, what, "mend it, or leave it empty for a managed cluster")
    if settings.tracking.enabled and uri:
        path = "tracking.uri" if settings.tracking.uri else TRACKING_VARIABLE
        if holds_password(uri):
            yield from password_problems(path, uri, TRACKING_ACCOUNT)
        elif not is_address(uri):
            what = f"{shown(uri)} is not the address of an MLflow server"
            yield Problem(path, what, "give http://HOST:PORT, or leave it empty for a managed one")
