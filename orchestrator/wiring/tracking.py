"""How to get to an MLflow server, by the variables that MLflow users know."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from orchestrator.core.settings import Settings

if TYPE_CHECKING:
    from orchestrator.adapters.mlflow_tracker import Access

_HERE = frozenset({"127.0.0.1", "::1", "localhost"})


def access(uri: str) -> Access:
    """Return how the environment says to get to the server at `uri` and be let in."""
    from orchestrator.adapters.mlflow_tracker import Access

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"1", "true"}
    return Access(
        user=os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        password=os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""),
        insecure=insecure,
        certificates=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", ""),
        identity=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH", ""),
        proxy=_proxy(uri),
    )


def bury(found: Settings, uri: str, run: str, reason: str) -> bool:
    """End what MLflow shows of a run that nobody drives; return whether that went through."""
    if not found.tracking.enabled:
        return True
    return not (uri and run and reason)


def _proxy(uri: str) -> str:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if host in _HERE or proxy_bypass(host):
        return ""
    return getproxies().get(parts.scheme, "")
