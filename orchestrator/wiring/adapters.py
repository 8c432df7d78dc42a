"""The adapters of a run: database, gates, cluster, tracker, worker."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import (
    StorageSetUpError,
)
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.settings import Settings, TrackingSettings
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.stages import Json
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
from orchestrator.wiring.home_folder import replica_secret
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


def database_refusal() -> tuple[str, str]:
    """Return why this host can't use the database server that its environment names.

    Where it names none, the second says that it was not tried, and what is lacking for it.
    """
    from orchestrator.adapters.database import addresses, transactions

    address = os.environ.get(DATABASE_VARIABLE, "")
    if addresses.servers(address, os.environ):
        return transactions.refusal(address), ""
    if importlib.util.find_spec("psycopg") is None:
        return "", "its Python has no psycopg: install orchestrator[postgres] for a controller"
    return "", f"{DATABASE_VARIABLE} is not set there"


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
            limits=request.pool.accelerator.limits(
                operation=request.waits.collective, joining=request.waits.meet
            ),
        ),
        chip=chip,
        tracked_run=partial(attempt_run, request),
        end_process=partial(_end_process, request),
    )
    return _releasing(messages, store)


def _end_process(request: AttemptRequest, words: Sequence[Message]) -> None:
    """End this process; whoever asks for its end later gets to know its last `words`."""
    from orchestrator.adapters.raycluster import last_words

    last_words.keep(words, request.secrets.values())
    os._exit(1)


def _releasing(
    messages: Iterator[Sequence[Message]], store: ArtifactStore
) -> Iterator[Sequence[Message]]:
    """Yield what a worker says; its process may work for other attempts after that."""
    try:
        yield from messages
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
