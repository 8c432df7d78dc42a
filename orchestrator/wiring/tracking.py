"""How to get to an MLflow server, by the variables that MLflow users know."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from orchestrator.core.address_passwords import password_problems
from orchestrator.core.endpoints.life import EndpointLife
from orchestrator.core.errors import TrackingError
from orchestrator.core.own_host import leads_home
from orchestrator.core.runs.run import Run
from orchestrator.core.settings import Settings, TrackingSettings
from orchestrator.messages import AttemptRequest, TrackedAt
from orchestrator.ports import Registry
from orchestrator.wiring import adapters
from orchestrator.wiring.adapters import (
    TRACKING_ACCOUNT,
    TRACKING_VARIABLE,
    tracking_address,
)

if TYPE_CHECKING:
    from orchestrator.adapters.mlflow_tracker import ServerAccess

SECONDS_TO_WRITE = 20.0
SECONDS_TO_SHOW = 20.0  # within which MLflow shows an attempt that has begun


def access(uri: str) -> ServerAccess:
    """Return how the environment says to get to the server at `uri` and be let in."""
    from orchestrator.adapters.mlflow_tracker import ServerAccess

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"1", "true"}
    return ServerAccess(
        user=os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        password=os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""),
        insecure=insecure,
        certificates=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", ""),
        identity=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH", ""),
        proxy=_proxy(uri),
    )


def place(settings: Settings, home: Path) -> TrackedAt | None:
    """Return where the runs of a config are shown; `None` where they are not, or not yet."""
    from orchestrator.adapters import mlflow_server

    if not settings.tracking.enabled:
        return None
    uri = tracking_address(settings.tracking) or mlflow_server.find(home)
    return TrackedAt(uri, settings.tracking.experiment) if uri else None


def attempt_run(request: AttemptRequest) -> tuple[Mapping[str, str], str]:
    """Return the variables by which a command writes to the run of its attempt, or why none."""
    from orchestrator.adapters.mlflow_tracker import run_variables

    login = access(request.tracked.uri if request.tracked else "")
    return run_variables(request, login, adapters.clock(), SECONDS_TO_SHOW)


def check(uri: str) -> None:
    """Check that an MLflow server, not ours, answers at `uri`, by a certificate that is trusted.

    Raises:
        TrackingError: `uri` is no address of a server, or nothing answers there.
    """
    from orchestrator.adapters import mlflow_server

    for problem in password_problems(TRACKING_VARIABLE, uri, TRACKING_ACCOUNT):
        raise TrackingError(str(problem))
    try:
        trusted = access(uri).trusted() if uri.startswith("https:") else None
    except OSError as error:  # ssl.SSLError is one
        what = "what MLFLOW_TRACKING_SERVER_CERT_PATH or _CLIENT_CERT_PATH names can't be read"
        raise TrackingError(f"{what}: {error.strerror or error}; name files in PEM") from error
    mlflow_server.check(uri, trusted)


def bury(home: Path, run: Run, reason: str) -> bool:
    """Write the last of a run that nobody drives; return whether that went through.

    What MLflow shows as running of it is ended, with the reason: a resume takes that back.
    """
    from orchestrator.adapters import hydra_config, mlflow_server
    from orchestrator.adapters.mlflow_tracker import MlflowTracker, reap

    settings = hydra_config.parse(run.header.config)
    if not settings.tracking.enabled:
        return True
    uri = tracking_address(settings.tracking) or mlflow_server.find(home)
    if not uri:
        return False
    store, header = adapters.database(home), run.header
    clock, login = adapters.clock(), access(uri)
    writer = MlflowTracker(
        store,
        header.run,
        uri=uri,
        settings=replace(settings.tracking, system_seconds=0.0),
        clock=clock,
        output=adapters.output(store, header, home),
        access=login,
        upto=lambda: run.seq,  # what follows is shown by whoever resumes the run
    )
    if not writer.close(SECONDS_TO_WRITE):
        return writer.given_up  # what is refused for good is buried as it stands
    try:
        if not run.done:
            reap(uri, settings.tracking.experiment, [header.run], reason, clock.now(), login)
    except TrackingError:
        return False
    return True


def unshow(home: Path, runs: Sequence[Run], *, dry: bool) -> int:
    """Delete what MLflow shows of `runs`, attempts too; return how many of its runs that are.

    All that is shown of a run stays where a version of a model comes from it. A `dry` one only
    counts.

    Raises:
        TrackingError: A server is away.
    """
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.mlflow_tracker import erase

    places: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        section = run.header.config.get("tracking")
        known = section if isinstance(section, Mapping) else {}
        default = TrackingSettings()
        uri = tracking_address(replace(default, uri=str(known.get("uri") or "")))
        experiment = str(known.get("experiment") or default.experiment)
        places.setdefault((uri, experiment), []).append(run.header.run)
    count = 0
    for (uri, experiment), names in places.items():
        here = uri or mlflow_server.find(home)
        if not here:
            raise TrackingError("MLflow is not up; `orchestrator up` starts it")
        count += erase(here, experiment, names, access(here), dry=dry)
    return count


def _proxy(uri: str) -> str:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if leads_home(uri) or proxy_bypass(host):
        return ""
    return getproxies().get(parts.scheme, "")


def registry(home: Path, *, start: bool = True) -> Registry:
    """Return the registry of models; the tracking server of this machine is started if need be.

    Raises:
        TrackingError: It can't be started or reached, or is down and not to be started.
    """
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.mlflow_tracker import Models

    uri = tracking_address(TrackingSettings()) or mlflow_server.find(home)
    if not uri and not start:
        raise TrackingError("MLflow is not up, and a dry run starts nothing; `orchestrator up`")
    uri = uri or mlflow_server.up(home)
    return Models(uri, access(uri))


def follow_traffic(home: Path, life: EndpointLife) -> bool:
    """Make the champion what has all traffic; return whether the registry was there.

    Where it is away the reaper does so later, or who next drives a run of this endpoint.
    """
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.mlflow_tracker import Models

    uri = tracking_address(TrackingSettings()) or mlflow_server.find(home)
    if not uri:
        return False
    models = Models(uri, access(uri))
    try:
        models.follow(life)
    except TrackingError:
        return False
    finally:
        models.close()
    return True
