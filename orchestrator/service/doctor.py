"""Check this machine, and what runs on it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator import wiring
from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.core.settings import GatewaySettings

PACKAGES = ("ray", "torch", "mlflow", "hydra-core", "transformers")
LEAST_FREE_GB = 5.0
LEAST_SHARED_MEMORY_GB = 0.5
GB = 1e9


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, its status (`ok`, `warning`, `error`), and what was found."""

    check: str
    status: str
    finding: str


def checks() -> Iterator[Check]:
    """Check this machine, and what runs on it."""
    home = wiring.home_path()
    home_check = _home()
    yield from _packages()
    yield home_check
    yield from _machine(home)
    yield from _foreign()
    if home_check.status == "ok":
        yield from _services(home)


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
        return Check("home", "ok", str(wiring.home()))
    except StoreError as error:
        return Check("home", "error", str(error))


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


def _services(home: Path) -> Iterator[Check]:
    up = wiring.running(home)
    for name in ("cluster", "MLflow"):
        yield Check(name, "ok", f"up at {up[name]}" if name in up else "not running")
    port = GatewaySettings().port
    taken = _answers(port) and wiring.find_gateway(home) is None
    finding = f"{port} is taken by another program; set gateway.port" if taken else str(port)
    yield Check("endpoint port", "warning" if taken else "ok", finding)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
