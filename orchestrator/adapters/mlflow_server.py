"""A managed MLflow server on this machine: one a home, on loopback, found again by its address.

Rules: SQLite in WAL under `HOME/mlflow`, artifacts beside it and served by the server; one worker,
no job execution, no telemetry, no pickle; the port is kept in the home, so that links stay good.
Nothing of MLflow is imported here: a command that only wants the address stays fast.
"""

from __future__ import annotations

import http.client
import re
import socket
import sqlite3
import ssl
import sys
import urllib.error
import urllib.request
import zlib
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from orchestrator import supervisor
from orchestrator.core.address_passwords import without_account
from orchestrator.core.errors import TrackingError
from orchestrator.core.settings import TrackingSettings
from orchestrator.core.spec.outside_servers import is_address
from orchestrator.supervisor import file_modes

SERVICE = "mlflow"
HOST = "127.0.0.1"
START_SECONDS = TrackingSettings().start
STARTS = 3
_NOT_THERE = "start it, or unset MLFLOW_TRACKING_URI"
_UNTRUSTED = "check its address, and name who signs for it in MLFLOW_TRACKING_SERVER_CERT_PATH"
_TAKEN = re.compile(r"in use|ended with", re.IGNORECASE)
_PORTS = range(20_000, 30_000)
_TRIES = 100
_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def up(home: Path, timeout: float = START_SECONDS) -> str:
    """Start the server of `home`, unless it runs, and return its address.

    It has `timeout` seconds to answer.

    A port that was free and is taken by the time of the start is left for another.

    Raises:
        TrackingError: It can't be started.
    """
    try:
        uri = find(home)
        if uri is not None:
            return uri
        supervisor.clear(home, SERVICE)  # what a killed daemon left would hold the port
        folder = _prepare(home)
        service = _start(home, folder, timeout)
    except (supervisor.ServiceError, OSError, sqlite3.Error) as error:
        where = str(home / "services")
        message = f"MLflow can't be started in {str(home)!r}: {error}; its log is in {where!r}"
        raise TrackingError(message) from error
    return str(service.info["uri"])


def _start(home: Path, folder: Path, timeout: float) -> supervisor.Service:
    for left in reversed(range(STARTS)):
        port = _port(folder)
        try:
            return supervisor.start(
                home,
                SERVICE,
                [_process(folder, port)],
                info={"uri": f"http://{HOST}:{port}"},
                timeout=timeout,
            )
        except supervisor.ServiceError as error:
            if not left or not _TAKEN.search(str(error)):
                raise
    raise AssertionError("the last start returns or raises")


def find(home: Path) -> str | None:
    """Return the address of the server of `home`, or `None` when it is not up."""
    service = supervisor.find(home, SERVICE)
    return str(service.info["uri"]) if service and service.processes else None


def down(home: Path) -> bool:
    """Stop the server of `home`; return whether there was one."""
    return supervisor.stop(home, SERVICE)


def check(uri: str, trusted: ssl.SSLContext | None = None, timeout: float = 5.0) -> None:
    """Check that an MLflow server, not ours, answers at `uri`, by a certificate that is `trusted`.

    Raises:
        TrackingError: `uri` is no address of a server, or nothing answers there.
    """
    if not is_address(uri):
        what = f"tracking.uri {without_account(uri)!r} is not the address of an MLflow server"
        raise TrackingError(f"{what}; give http://HOST:PORT, or leave it empty for a managed one")
    place = without_account(uri.rstrip("/"))
    request = urllib.request.Request(f"{place}/health")  # noqa: S310 - http(s) alone
    try:
        urllib.request.urlopen(request, timeout=timeout, context=trusted).close()  # noqa: S310 - as above
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in is for the tracker to see
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        what = f"no MLflow server answers at {place!r} ({reason})"
        hint = _UNTRUSTED if isinstance(reason, ssl.SSLError) else _NOT_THERE
        raise TrackingError(f"{what}; {hint}") from error


def _prepare(home: Path) -> Path:
    """Create the folder and the database, this user's alone; WAL is set once and stays."""
    folder = file_modes.private_folder(home.absolute() / "mlflow")
    file_modes.private_folder(folder / "artifacts")
    database = file_modes.private_file(folder / "mlflow.db")  # its journals follow it
    connection = sqlite3.connect(database)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
    return folder


def _port(folder: Path) -> int:
    """Return the port of last time when it is free, else a free one, and remember it.

    It lies below the ports that systems give to outgoing connections: one of those could hold it
    at the moment of a restart.
    """
    kept = folder / "port"
    try:
        return _bindable(int(kept.read_text()))
    except (FileNotFoundError, ValueError, OverflowError, OSError):
        port = _free(zlib.crc32(str(folder).encode()))
        kept.write_text(f"{port}\n")
        return port


def _free(preferred: int) -> int:
    for step in range(_TRIES):
        with suppress(OSError):
            return _bindable(_PORTS[(preferred + step) % len(_PORTS)])
    return _bindable(0)


def _bindable(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return int(probe.getsockname()[1])


def _process(folder: Path, port: int) -> supervisor.Process:
    argv = (
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", f"sqlite:///{quote(str(folder / 'mlflow.db'))}"),
        *("--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    )
    ready = (HOST, port)
    return supervisor.Process(name="server", argv=argv, env=_ENVIRONMENT, ready=ready)
