"""The use cases from Python: launch and follow runs, ask endpoints. `import orchestrator as o`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.client.planned import RunPlan
from orchestrator.client.running import LiveRun
from orchestrator.client.served import LiveEndpoint
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.stages import Pipeline
from orchestrator.service import endpoints as endpoints_of_home
from orchestrator.service import planning, status
from orchestrator.service import runs as runs_of_home
from orchestrator.service.launching import launch as plan_launch
from orchestrator.service.planning import ConfigSource


def plan(
    *overrides: str,
    pipeline: Pipeline | None = None,
    fleet: Fleet | None = None,
    config_dir: str | Path | None = None,
    unqualified: bool = False,
) -> RunPlan:
    """Return what a launch would do: stages, pools, formats, cost.

    `overrides` are Hydra's, as those of the command `orchestrator plan`. A `pipeline` or a `fleet`
    built in Python stands in the place of the one that a config names.

    Raises:
        ConfigError: With all problems.
    """
    source = _source(overrides, pipeline, fleet, config_dir)
    return RunPlan(planning.plan(source, unqualified=unqualified))


def launch(
    *overrides: str,
    pipeline: Pipeline | None = None,
    fleet: Fleet | None = None,
    config_dir: str | Path | None = None,
    unqualified: bool = False,
    continues: str = "",
    reuse: bool = True,
) -> LiveRun:
    """Launch a run, and return it once it goes on by itself, as a job of the cluster.

    With `cluster=local` it runs in this process, and has ended when it is returned. The services
    that it needs are started, and stay up. `continues` names a run from whose checkpoints the
    stages go on; without `reuse` every stage runs.

    Raises:
        ConfigError: With all problems.
        ClusterError: The cluster can't be reached, or does not take the run.
        TrackingError: MLflow can't be started or reached.
    """
    source = _source(overrides, pipeline, fleet, config_dir)
    planned = plan_launch(source, unqualified=unqualified, continues=continues, reuse=reuse)
    return LiveRun.started(planned)


def run(name: str) -> LiveRun:
    """Return a run by its id, or the beginning of that.

    Raises:
        NotFoundError: There is none, or there are several.
    """
    return LiveRun(runs_of_home.find(name).header.run)


def runs(limit: int = 20) -> Sequence[LiveRun]:
    """Return the newest runs, at most `limit`, the newest first."""
    return [LiveRun(listed.run.header.run) for listed in status.newest(limit)]


def endpoint(name: str) -> LiveEndpoint:
    """Return an endpoint that is served.

    Raises:
        NotFoundError: It is not.
    """
    return LiveEndpoint(endpoints_of_home.served_life(name).name)


def live_endpoints() -> Sequence[LiveEndpoint]:
    """Return the endpoints that are served."""
    lives = endpoints_of_home.endpoints().lives
    return [LiveEndpoint(name) for name, life in lives.items() if life.shares]


def _source(
    overrides: Sequence[str],
    pipeline: Pipeline | None,
    fleet: Fleet | None,
    config_dir: str | Path | None,
) -> ConfigSource:
    folder = Path(config_dir) if config_dir else None
    return ConfigSource(tuple(overrides), folder, pipeline=pipeline, fleet=fleet)
