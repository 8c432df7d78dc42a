"""`orchestrator doctor`: check this machine, and what runs on it."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

from orchestrator import wiring
from orchestrator.cli import tables
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.core.settings import GatewaySettings

PACKAGES = ("ray", "torch", "mlflow", "hydra-core", "transformers")
LEAST_FREE_GB = 5.0
LEAST_SHARED_MEMORY_GB = 0.5
GB = 1e9

Check: TypeAlias = tuple[str, str, str]


def run(args: argparse.Namespace) -> Exit:
    """Print each check; the exit code is 1 when any is an error."""
    at = wiring.home_path()
    home = _home()
    checks = [*_packages(), home, *_machine(at), *_foreign()]
    checks += _services(at) if home[1] == "ok" else ()
    if args.json:
        names = ("check", "status", "finding")
        print(tables.as_json([dict(zip(names, row, strict=True)) for row in checks]))
    else:
        tables.console().print(tables.table(("CHECK", "STATUS", "FINDING"), checks))
    failed = any(status == "error" for _, status, _ in checks)
    return Exit.ERROR if failed else Exit.SUCCEEDED


def _packages() -> Iterator[Check]:
    version = sys.version.split()[0]
    yield "python", "ok" if sys.version_info >= (3, 11) else "error", version
    for name in PACKAGES:
        try:
            yield name, "ok", metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "error", "not installed; pip install orchestrator brings it"


def _home() -> Check:
    try:
        return "home", "ok", str(wiring.home())
    except StoreError as error:
        return "home", "error", str(error)


def _machine(at: Path) -> Iterator[Check]:
    existing = next(folder for folder in (at, *at.parents) if os.path.exists(folder))  # noqa: PTH110 - of any name
    yield _space("disk", existing, LEAST_FREE_GB)
    shared = Path("/dev/shm")  # noqa: S108 - Ray's object store lives there
    if shared.exists():
        yield _space("shared memory", shared, LEAST_SHARED_MEMORY_GB)
    yield "cores", "ok", str(os.cpu_count())


def _space(name: str, folder: Path, least: float) -> Check:
    free = shutil.disk_usage(folder).free / GB
    enough = free >= least
    hint = "" if enough else f"; at least {least:g} GB are wanted"
    return name, "ok" if enough else "warning", f"{free:.1f} GB free{hint}"


def _foreign() -> Iterator[Check]:
    """Yield whether what the environment names can be reached."""
    for name, check in wiring.foreign().items():
        try:
            check()
        except OrchestratorError as error:
            yield name, "error", str(error)
        else:
            yield name, "ok", "answers"


def _services(at: Path) -> Iterator[Check]:
    up = wiring.running(at)
    for name in ("cluster", "MLflow"):
        yield name, "ok", f"up at {up[name]}" if name in up else "not running"
    port = GatewaySettings().port
    taken = _answers(port) and wiring.find_gateway(at) is None
    found = f"{port} is taken by another program; set gateway.port" if taken else str(port)
    yield "endpoint port", "warning" if taken else "ok", found


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
