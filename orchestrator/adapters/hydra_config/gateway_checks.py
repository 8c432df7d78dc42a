"""What types can't say of the gateway's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from urllib.parse import urlsplit

from orchestrator.core.address_passwords import (
    holds_password,
    password_problems,
    without_account,
)
from orchestrator.core.errors import Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec.stages import Json
from orchestrator.serving.http.request_limits import GatewayLimits

_KEYS = "leave it out: clients show a key, which `orchestrator keys add` makes"


def problems(settings: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield what is wrong with the group `gateway` beside its types."""
    yield from _url_problems(settings.get("url"))
    yield from _tls_problems(settings.get("tls"))
    yield from _limit_problems(settings.get("limits"))
    cors = settings.get("cors")
    origins = cors.get("origins") if isinstance(cors, dict) else None
    for number, origin in enumerate(origins if isinstance(origins, list) else ()):
        if isinstance(origin, str) and not _is_origin(origin):
            what = f"{shown(without_account(origin))} is no origin"
            yield Problem(f"gateway.cors.origins.{number}", what, "write https://HOST[:PORT] or *")


def _url_problems(url: Json) -> Iterator[Problem]:
    if not isinstance(url, str) or not url:
        return
    if holds_password(url):
        yield from password_problems("gateway.url", url, _KEYS)
    elif not _is_url(url):
        what = f"{shown(url)} is not the address of a server"
        yield Problem("gateway.url", what, "write https://HOST[:PORT], or leave it empty")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # brackets without an address
        return False


def _tls_problems(tls: Json) -> Iterator[Problem]:
    files = tls if isinstance(tls, dict) else {}
    given = {name: files.get(name) for name in ("certificate", "key") if files.get(name)}
    if len(given) == 1:
        (lacking,) = {"certificate", "key"} - given.keys()
        what = f"is missing beside gateway.tls.{next(iter(given))}"
        yield Problem(f"gateway.tls.{lacking}", what, "name a file in PEM")


def _limit_problems(values: Json) -> Iterator[Problem]:
    known = {f.name: f.default for f in fields(GatewayLimits)}
    for name, value in (values if isinstance(values, dict) else {}).items():
        path, default = f"gateway.limits.{name}", known.get(name)
        if default is None:
            yield Problem(path, f"unknown key {shown(name)}", choices(name, known, "keys"))
        elif isinstance(default, int) and isinstance(value, float) and not value.is_integer():
            yield Problem(path, f"{shown(value)} is not a whole number")


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    bare = parts.scheme and parts.netloc and not (parts.path or parts.query or parts.fragment)
    return text == "*" or bool(bare and "@" not in parts.netloc)
