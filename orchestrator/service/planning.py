"""What a launch would do: plans, and whether their pools have earned their roles.

The command line and Python name a config by a `ConfigSource`, which composes and plans it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator import wiring
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.forecast import forecasts
from orchestrator.core.settings import Settings
from orchestrator.core.spec.formats import PLAIN
from orchestrator.core.spec.plan import Plan
from orchestrator.core.trust.qualification import Vetted
from orchestrator.wiring.config_source import ConfigSource

__all__ = [
    "ConfigSource",
    "PlannedRun",
    "check_detachable",
    "detachable",
    "plan",
    "plan_together",
]

SHARED: Mapping[str, Callable[[Settings], object]] = {
    "cluster.kind": lambda settings: settings.cluster.kind,
    "cluster.address": lambda settings: settings.cluster.address,
    "gateway.host": lambda settings: settings.gateway.host,
    "gateway.port": lambda settings: settings.gateway.port,
    "cluster.object_store_mb": lambda settings: settings.cluster.object_store_mb,
    "tracking.enabled": lambda settings: settings.tracking.enabled,
    "tracking.uri": lambda settings: settings.tracking.uri,
}
WAY_OUT = "launch them one by one"
EMBEDDED = "jobs.engines.embedded.EmbeddedEngine"  # as `conf/endpoint/default.yaml` names it


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A config and its plan; `vetted` is the plan with pools that may be used, and what not.

    `plan` makes it; a launch reads it, and whoever shows what a launch would do.
    """

    settings: Settings
    plan: Plan
    vetted: Vetted

    @property
    def forecasts(self) -> Mapping[str, Mapping[FailureKind, str]]:
        """What would follow each kind of failure of a stage's first attempt, by stage."""
        return dict(forecasts(self.plan))

    @property
    def notes(self) -> Sequence[str]:
        """What there is to know beside the plan, in lines."""
        return [*self.settings.renamed, *self.vetted.dropped, *self.vetted.notes]


def plan(source: ConfigSource, *, unqualified: bool = False) -> PlannedRun:
    """Plan a config; with `unqualified` no pool needs a verdict.

    Raises:
        ConfigError: With all problems.
    """
    settings, pipeline_plan = source.planned()
    home = wiring.home_path()
    problems, notes = wiring.weigh(settings, home)
    if problems:  # the code is too much to be read for what it forecasts
        raise ConfigError(problems)
    misfits, forecast = wiring.job_forecasts(settings, home, pipeline_plan)
    if misfits:
        raise ConfigError(misfits)
    vetted = wiring.vetted(settings, pipeline_plan, unqualified=unqualified)
    vetted = replace(vetted, notes=(*vetted.notes, *notes, *_widened(pipeline_plan), *forecast))
    return PlannedRun(settings, pipeline_plan, vetted)


def _widened(plan: Plan) -> Iterator[str]:
    """Yield where weights are stored in fewer bits than they are computed with."""
    for planned in plan.stages:
        endpoint = planned.stage.endpoint
        if endpoint is None or endpoint.engine != EMBEDDED or not planned.formats:
            continue
        stored = planned.formats[0]
        if stored not in PLAIN:
            yield (
                f"stage {planned.stage.name!r}: its weights are stored as {stored} and computed"
                f" in bf16 or fp32 by the embedded engine, which takes their memory and time; an"
                f" engine server computes in {stored}"
            )


def plan_together(sources: Sequence[ConfigSource], *, unqualified: bool) -> Sequence[PlannedRun]:
    """Plan configs that are to be launched one after the other, on the same services.

    Raises:
        ConfigError: With all problems of all of them, and what they would have to share.
    """
    planned: list[PlannedRun] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            planned.append(plan(source, unqualified=unqualified))
        except ConfigError as error:
            problems.extend(error.problems)
    problems += [problem for planned_run in planned for problem in planned_run.vetted.problems]
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    _check_together([planned_run.settings for planned_run in planned])
    return planned


def _check_together(settings: Sequence[Settings]) -> None:
    """Refuse a sweep over what all its runs share. Raises `ConfigError`."""
    problems = [
        Problem(path, f"the runs of a sweep share it, but it is {' and '.join(values)}", WAY_OUT)
        for path, read in SHARED.items()
        if len(values := dict.fromkeys(repr(read(each)) for each in settings)) > 1
    ]
    if problems:
        raise ConfigError(problems)


def detachable(settings: Settings) -> bool:
    """Return whether a run can go on by itself: not one that runs in this process."""
    return settings.cluster.kind != "local"


def check_detachable(settings: Settings) -> None:
    """Refuse to detach what runs in this process. Raises `ConfigError`."""
    if not detachable(settings):
        what = "'local' runs in this process and can't be detached"
        raise ConfigError([Problem("cluster.kind", what, "use cluster=ray")])
