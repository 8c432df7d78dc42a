"""Check this machine, and what runs on it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator import wiring
from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.core.settings import GatewaySettings, Settings
from orchestrator.service import cluster_checks
from orchestrator.service.check import Check
from orchestrator.service.config_source import ConfigSource
from orchestrator.supervisor import file_modes

PACKAGES = ("ray", "torch", "mlflow", "hydra-core", "transformers")
LEAST_FREE_GB = 5.0
LEAST_SHARED_MEMORY_GB = 0.5
GB = 1e9


def checks(source: ConfigSource | None = None) -> Iterator[Check]:
    """Check this machine, what runs on it, and the cluster that `source` or the environment names.

    Without a `source` a fleet is not looked at.
    """
    home = wiring.home_path()
    home_check = _home()
    yield from _packages()
    yield home_check
    yield from _machine(home)
    foreign = list(_foreign())
    yield from foreign
    if home_check.status != "ok":
        return
    try:
        looked_at = source is not None or _named("RAY_ADDRESS")
        settings = (source or ConfigSource()).settings() if looked_at else None
    except OrchestratorError as error:
        yield Check("config", "error", str(error))
        settings = None
    yield from _services(home, settings)
    silent = any(c.check == "RAY_ADDRESS" and c.status == "error" for c in foreign)
    if settings is not None and (
        settings.cluster.address or (_named("RAY_ADDRESS") and not silent)
    ):
        yield from cluster_checks.checks(settings, named=source is not None)


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
    existing = next(folder for folder in (home, *home.parents) if os.path.exists(folder))  # noqa: PTH110 - of any name
    yield _space("disk", existing, LEAST_FREE_GB)
    shared = Path("/dev/shm")  # noqa: S108 - Ray's object store lives there
    if shared.exists():
        yield _space("shared memory", shared, LEAST_SHARED_MEMORY_GB)
    yield Check("cores", "ok", str(os.cpu_count()))


def _space(name: str, folder: Path, least: float) -> Check:
    free = shutil.disk_usage(folder).free / GB
    enough = free >= least
    hint = "" if enough else f"; at least {least:g} GB are wanted"
    return Check(name, "ok" if enough else "warning", f"{free:.1f} GB free{hint}")


def _foreign() -> Iterator[Check]:
    """Yield whether what the environment names can be reached."""
    for name, check in wiring.foreign().items():
        try:
            check()
        except OrchestratorError as error:
            yield Check(name, "error", str(error))
        else:
            yield Check(name, "ok", "answers")


def _named(name: str) -> bool:
    return bool(wiring.variable(name))


def _services(home: Path, settings: Settings | None) -> Iterator[Check]:
    """Yield what this home runs; what others run for it is looked at elsewhere."""
    up = wiring.running(home)
    foreign = {
        "cluster": _named("RAY_ADDRESS") or bool(settings and settings.cluster.address),
        "MLflow": _named("MLFLOW_TRACKING_URI") or bool(settings and settings.tracking.uri),
    }
    for name in ("cluster", "MLflow"):
        if name in up or not foreign[name]:
            yield Check(name, "ok", f"up at {up[name]}" if name in up else "not running")
    yield _gateway(home, settings.gateway.port if settings else GatewaySettings().port)


def _gateway(home: Path, port: int) -> Check:
    """Return whether the gateway's port can be had, or a gateway of this database has it."""
    if not _answers(port):
        return Check("endpoint port", "ok", str(port))
    own = wiring.find_gateway(home)
    if own is not None:
        return Check("endpoint port", "ok", f"{port}: the gateway of this home, {own}")
    for gateway in wiring.database(home).gateways() if wiring.has_database(home) else ():
        if gateway.live and gateway.host == wiring.host() and urlsplit(gateway.url).port == port:
            return Check(
                "endpoint port", "ok", f"{port}: a gateway of this database, {gateway.url}"
            )
    taken = f"{port} is taken by another program; set gateway.port"
    return Check("endpoint port", "warning", taken)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
