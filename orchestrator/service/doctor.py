"""Check this machine, and what runs on it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator import wiring
from orchestrator.core.artifact import ANY_ROOM
from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.core.settings import GatewaySettings, Settings
from orchestrator.error_boundary import outcome, reason
from orchestrator.service import cluster_checks
from orchestrator.service.check import GB, LEAST_FREE_GB, LEAST_SHARED_MEMORY_GB, Check
from orchestrator.supervisor import file_modes
from orchestrator.wiring.config_source import ConfigSource

PACKAGES = ("ray", "torch", "mlflow", "hydra-core", "transformers")


def checks(source: ConfigSource | None = None) -> Iterator[Check]:
    """Check this machine, what runs on it, and the cluster that `source` or the environment names.

    Without a `source` a fleet is not looked at.
    """
    home = wiring.home_path()
    home_check = _home()
    yield from _packages()
    yield home_check
    yield from _whole("machine", _machine(home))
    foreign = list(_foreign())
    yield from foreign
    if home_check.status != "ok":
        return
    settings = None
    if source is not None or _named("RAY_ADDRESS"):
        composed = outcome((source or ConfigSource()).settings, but=())
        settings = composed.value
        if composed.error is not None:
            yield Check("config", "error", _text_of(composed.error))
    yield from _whole("cache", _cache(settings))
    yield from _whole("services", _services(home, settings))
    port = settings.gateway.port if settings else GatewaySettings().port
    yield from _whole("endpoint port", _gateway(home, port))
    silent = any(c.check == "RAY_ADDRESS" and c.status == "error" for c in foreign)
    if settings is not None and (
        settings.cluster.address or (_named("RAY_ADDRESS") and not silent)
    ):
        others = cluster_checks.checks(settings, named=source is not None)
        yield from _whole("cluster", others)


def _whole(name: str, part: Iterator[Check]) -> Iterator[Check]:
    """Yield the checks of `part`; what breaks it is an error, and the other parts go on."""
    while True:
        following = outcome(partial(next, part, None), but=())
        if following.error is not None:
            yield Check(name, "error", _text_of(following.error))
        if following.value is None:
            return
        yield following.value


def _text_of(error: Exception) -> str:
    return str(error) if isinstance(error, OrchestratorError) else reason(error)


def _packages() -> Iterator[Check]:
    version = sys.version.split()[0]
    yield Check("python", "ok" if sys.version_info >= (3, 11) else "error", version)
    for name in PACKAGES:
        try:
            yield Check(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, "error", "not installed; pip install orchestrator brings it")


def _home() -> Check:
    try:
        home = wiring.home()
    except StoreError as error:
        return Check("home", "error", str(error))
    mode = file_modes.open_to_others(home)
    if mode:
        return Check(
            "home", "warning", f"{home}: others may enter (mode {mode:04o}); `chmod 700` it"
        )
    return Check("home", "ok", str(home))


def _machine(home: Path) -> Iterator[Check]:
    yield _space("disk", home, LEAST_FREE_GB)
    shared = Path("/dev/shm")  # noqa: S108 - Ray's object store lives there
    if shared.exists():
        yield _space("shared memory", shared, LEAST_SHARED_MEMORY_GB)
    yield Check("cores", "ok", str(os.cpu_count()))


def _cache(settings: Settings | None) -> Iterator[Check]:
    """Yield what the disk has free on which this machine keeps what it downloads."""
    folder = wiring.cache_folder(settings.storage.room if settings else ANY_ROOM)
    yield _space(f"cache {folder}", folder, LEAST_FREE_GB)


def _space(name: str, folder: Path, least: float) -> Check:
    """Return what is free where `folder` is, or will be."""
    existing = next(place for place in (folder, *folder.parents) if os.path.exists(place))  # noqa: PTH110 - of any name
    free = shutil.disk_usage(existing).free / GB
    enough = free >= least
    hint = "" if enough else f"; at least {least:g} GB are wanted"
    return Check(name, "ok" if enough else "warning", f"{free:.1f} GB free{hint}")


def _foreign() -> Iterator[Check]:
    """Yield whether what the environment names can be reached."""
    for name, check in wiring.foreign().items():
        error = outcome(check, but=()).error
        yield Check(name, "error", _text_of(error)) if error else Check(name, "ok", "answers")


def _named(name: str) -> bool:
    return bool(wiring.variable(name))


def _services(home: Path, settings: Settings | None) -> Iterator[Check]:
    """Yield what this home runs; what others run for it is looked at elsewhere."""
    up = wiring.running(home)
    foreign = {
        "cluster": _named("RAY_ADDRESS") or bool(settings and settings.cluster.address),
        "MLflow": _named("MLFLOW_TRACKING_URI") or bool(settings and settings.tracking.uri),
    }
    elsewhere = wiring.services_elsewhere(home)
    for name, host in elsewhere.items():
        yield Check(name, "error", f"runs on {host}; type it there")
    for name in ("cluster", "MLflow"):
        if name in elsewhere:
            continue
        if name in up or not foreign[name]:
            yield Check(name, "ok", f"up at {up[name]}" if name in up else "not running")


def _gateway(home: Path, port: int) -> Iterator[Check]:
    """Yield whether the gateway's port can be had, or a gateway of this database has it."""
    if not _answers(port):
        yield Check("endpoint port", "ok", str(port))
        return
    own, at = wiring.find_gateway(home), wiring.gateway_port(home)
    if own is not None and at == port:
        yield Check("endpoint port", "ok", f"{port}: the gateway of this home, {own}")
        return
    try:
        others = wiring.database(home).gateways() if wiring.has_database(home) else ()
    except StoreError:  # which is said of the database
        others = ()
    for gateway in others:
        if (
            gateway.live
            and gateway.host == wiring.machine()
            and urlsplit(gateway.url).port == port
        ):
            seen = f"{port}: a gateway of this database, {gateway.url}"
            yield Check("endpoint port", "ok", seen)
            return
    where = f", and the gateway of this home is on {at}" if own is not None else ""
    taken = f"{port} is taken by another program{where}; set gateway.port"
    yield Check("endpoint port", "warning", taken)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
