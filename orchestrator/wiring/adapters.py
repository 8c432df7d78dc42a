"""The adapters of a run: config and plan, stores, cluster, serving, tracker, worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.address_passwords import holds_password, password_problems
from orchestrator.core.errors import (
    ConfigError,
    PlanError,
    Problem,
    StorageSetUpError,
    shown,
)
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.settings import Settings, TrackingSettings
from orchestrator.core.spec.command_stages import params_path, writes_to_mlflow
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.outside_servers import is_address
from orchestrator.core.spec.plan import Plan, make_plan
from orchestrator.core.spec.stages import Json, Pipeline
from orchestrator.messages import AttemptRequest, Message
from orchestrator.ports import (
    ArtifactStore,
    Clock,
    Cluster,
    Gates,
    Interventions,
    OutputStore,
    Tracker,
)
from orchestrator.wiring import storage, workdirs
from orchestrator.wiring.home_folder import replica_secret
from orchestrator.wiring.secret_values import secret_problems
from orchestrator.wiring.storage import artifact_store, room_here

if TYPE_CHECKING:
    from orchestrator.adapters.database import SqlDatabase
    from orchestrator.adapters.mlflow_tracker import TrackedRuns
    from orchestrator.output_reader import OutputReader

DATABASE_VARIABLE = "ORCHESTRATOR_DATABASE"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
TRACKING_ACCOUNT = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"


def variable(name: str) -> str:
    """Return an environment variable, empty where it isn't set."""
    return os.environ.get(name, "")


# --- config and plan --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Built:
    """Parts of a config that were built in Python."""

    pipeline: Pipeline | None = None
    fleet: Fleet | None = None

    @property
    def sections(self) -> Mapping[str, Json]:
        """The sections of a config that they are."""
        from orchestrator.adapters.hydra_config import built_sections

        sections = {"pipeline": built_sections.pipeline(self.pipeline)} if self.pipeline else {}
        return {**sections, "fleet": built_sections.fleet(self.fleet)} if self.fleet else sections


NOTHING_BUILT = Built()


def settings(
    overrides: Sequence[str],
    config_dir: Path | None = None,
    config_name: str = "config",
    built: Built = NOTHING_BUILT,
) -> Settings:
    """Compose and parse a config; what was `built` in Python stands in the place of its parts.

    Raises:
        ConfigError: With all problems.
    """
    from orchestrator.adapters import hydra_config

    return hydra_config.compose(
        overrides, config_dir=config_dir, config_name=config_name, sections=built.sections
    )


def planned(
    overrides: Sequence[str],
    config_dir: Path | None = None,
    config_name: str = "config",
    built: Built = NOTHING_BUILT,
) -> tuple[Settings, Plan]:
    """Compose, parse and plan at once, so that no problem hides another.

    Raises:
        ConfigError: With all problems, those of the plan too.
    """
    from orchestrator.adapters import hydra_config

    settings, problems = hydra_config.try_compose(
        overrides, config_dir=config_dir, config_name=config_name, sections=built.sections
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


# --- adapters ---------------------------------------------------------------------------------


def clock() -> Clock:
    """Return the system's clock."""
    from orchestrator.adapters.clock import SystemClock

    return SystemClock()


def database(home: Path, patience: float | None = None) -> SqlDatabase:
    """Return the database of `home`; `ORCHESTRATOR_DATABASE` names another one.

    Callers with `patience` (seconds) try again by themselves: one try takes a part of that.
    """
    from orchestrator.adapters.database import SqlDatabase

    place = os.environ.get(DATABASE_VARIABLE) or home / "events.db"
    return SqlDatabase(place, patience, secret=partial(replica_secret, home))


def has_database(home: Path) -> bool:
    """Return whether `home` has a database yet, without making one."""
    return bool(os.environ.get(DATABASE_VARIABLE)) or os.path.exists(home / "events.db")  # noqa: PTH110 - of any name


def gates(interventions: Interventions) -> Gates:
    """Return what looks whether stages may pass their gates."""
    from orchestrator.adapters.artifacts import open_files
    from orchestrator.adapters.gates import GateConditions

    return GateConditions(interventions, open_files)


def cluster_address(settings: Settings) -> str:
    """Return the address of a cluster that is not ours to start; empty where there is none.

    A job of the cluster knows its head, where the config names the server of jobs alone.
    """
    named, known = settings.cluster.address, os.environ.get("RAY_ADDRESS", "")
    heads = [address for address in (named, known) if address and "://" not in address]
    return next(iter(heads), named or known)


def tracking_address(tracking: TrackingSettings) -> str:
    """Return the address of an MLflow server that is not ours to start; empty where none is."""
    return tracking.uri or os.environ.get(TRACKING_VARIABLE, "")


def pinned(settings: Settings) -> Mapping[str, Json]:
    """Return the config with what the environment says, so that a later resume goes there too."""
    where: dict[str, dict[str, Json]] = {}
    if settings.cluster.kind == "ray":
        where["cluster"] = {"address": cluster_address(settings)}
    if settings.tracking.enabled:
        where["tracking"] = {"uri": tracking_address(settings.tracking)}
    sections = {name: settings.resolved.get(name) for name in where}
    kept = {n: section for n, section in sections.items() if isinstance(section, Mapping)}
    return {**settings.resolved, **{n: {**kept.get(n, {}), **where[n]} for n in where}}


def cluster(settings: Settings, planned: Plan, address: str) -> Cluster:
    """Return the cluster on which attempts run."""
    if settings.cluster.kind == "local":
        from orchestrator.adapters.local import LocalCluster

        return LocalCluster(run_worker, planned.pools)
    from orchestrator.adapters.raycluster.cluster import RayCluster

    managed, waits = not cluster_address(settings), settings.cluster
    patience = waits.managed_patience if managed else waits.patience
    return RayCluster(address, run_worker, patience, warm=warm_worker)


def output(store: OutputStore, header: RunHeader, home: Path) -> OutputReader:
    """Return what the attempts of a run have written; its config says where its artifacts are."""
    from orchestrator.output_reader import OutputReader

    storage = header.config.get("storage")
    uri = str(storage.get("uri") or "") if isinstance(storage, Mapping) else ""
    place = uri or (home / "artifacts").as_uri()
    return OutputReader(store, cache(partial(artifact_store, place)), header.run)


def tracker(
    settings: Settings,
    store: TrackedRuns,
    uri: str,
    home: Path,
    output: OutputReader,
    upto: Callable[[], int],
) -> Tracker:
    """Return the projection of a run into MLflow, or one that writes nothing.

    `output` is what the attempts of the run write. `upto` returns the number of the last event
    that is to be shown.
    """
    if not settings.tracking.enabled:
        from orchestrator.adapters.no_tracker import NoTracker

        return NoTracker()
    from orchestrator.adapters.mlflow_tracker import MlflowTracker
    from orchestrator.wiring.tracking import access

    return MlflowTracker(
        store,
        output.run,
        uri=uri,
        settings=settings.tracking,
        clock=clock(),
        output=output,
        access=replace(access(uri), seconds=settings.tracking.request),
        pools=_pool_processes(home),
        upto=upto,
        endpoints=database(home),
    )


def _pool_processes(home: Path) -> Mapping[str, int]:
    """Return the process of each pool's first node on this machine, to measure its load."""
    from orchestrator.adapters.raycluster import managed_ray

    cluster = managed_ray.find(home)
    nodes = cluster.processes.items() if cluster else ()
    return {name.removesuffix("-0"): pid for name, pid in nodes if name.endswith("-0")}


# --- what runs on the pools -------------------------------------------------------------------


def run_worker(
    request: AttemptRequest, *, rank: int, rendezvous: str | None
) -> Iterator[Sequence[Message]]:
    """Run worker `rank` of an attempt; the port `Worker`."""
    from orchestrator.adapters.torch_process_group import open_process_group
    from orchestrator.wiring.tracking import attempt_run
    from orchestrator.worker.attempt import not_set_up, stream
    from orchestrator.worker.real_chip import real_chip

    chip = real_chip
    if request.pool.emulated:
        from orchestrator.emulation import emulated_chip as chip
    try:
        store = _worker_store(request)
    except StorageSetUpError as error:
        return not_set_up(request, error)
    messages = stream(
        request,
        rank=rank,
        rendezvous=rendezvous,
        store=store,
        clock=clock(),
        process_group=partial(
            open_process_group,
            waits=request.waits,
            interface_variable=request.pool.accelerator.interface_variable,
            timeout_variable=request.pool.accelerator.timeout_variable,
        ),
        chip=chip,
        tracked_run=partial(attempt_run, request),
    )
    return _over(messages, store)


def _over(said: Iterator[Sequence[Message]], store: ArtifactStore) -> Iterator[Sequence[Message]]:
    """Yield what a worker says; its process may work for other attempts after that."""
    try:
        yield from said
    finally:
        store.release()


def warm_worker(request: AttemptRequest) -> None:
    """Import what an attempt like `request` needs, in a process that stands by for it."""
    from orchestrator.worker.warming import warm

    warm(request, _worker_store(request))


def _worker_store(request: AttemptRequest) -> ArtifactStore:
    from orchestrator.adapters.artifacts import FsspecArtifactStore

    patience = request.waits.storage
    return FsspecArtifactStore(
        request.storage,
        clock=clock(),
        attempt=request.key,
        patience=patience,
        room=room_here(request.room),
    )
