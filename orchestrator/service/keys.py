"""API keys of the gateway: who may ask the endpoints.

Whether a key is needed is a setting of its own: the first key that is added switches it on, and
`require` alone switches it off. Revoking the last key lets nobody in.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import wiring
from orchestrator.core.endpoints.api_keys import ApiKey, Requirement
from orchestrator.core.endpoints.metering import month_of
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.ports import KeyStore
from orchestrator.service.change import Change


@dataclass(frozen=True, slots=True)
class Access:
    """The keys that there are, and whether clients must show one."""

    keys: Sequence[ApiKey]
    required: Requirement


def now() -> float:
    """Return the time by which keys end, that of the database: clocks of hosts differ."""
    return wiring.database(wiring.home()).now()


def access() -> Access:
    """Return who may ask the endpoints."""
    store = _store()
    return Access(store.api_keys(), store.key_rules().required)


def find(name: str) -> ApiKey:
    """Return the key of that name.

    Raises:
        NotFoundError: There is none.
    """
    keys = {key.name: key for key in _store().api_keys()}
    if name not in keys:
        raise NotFoundError(f"no key {name!r}; there are: {', '.join(keys) or 'none'}")
    return keys[name]


def spent(key: ApiKey) -> float:
    """Return what was spent by a key this month, in US dollars."""
    used = wiring.database(wiring.home()).spent(month_of(now()))
    return used.get(key.name, 0.0)


def unknown_models(key: ApiKey) -> Sequence[str]:
    """Return the endpoints that a key opens and that are not there yet."""
    known = wiring.database(wiring.home()).endpoints()
    return [model for model in key.models if model not in known]


def add(key: ApiKey) -> Change[str]:
    """Add a key; its secret is returned this once, and only the hash of it is kept.

    Raises:
        ConfigError: There is a key of that name.
    """
    if any(other.name == key.name for other in _store().api_keys()):
        what = f"there is a key {key.name!r}"
        hint = "change it by keys set, revoke it first, or take another name"
        raise ConfigError([Problem("keys", what, hint)])

    def make() -> str:
        secret, digest = _secret()
        _store().add_key(replace(key, digest=digest))
        return secret

    opens = ", ".join(key.models) or "all endpoints"
    return Change(f"add key {key.name}, which opens {opens}", make)


def limited(key: ApiKey, changes: Mapping[str, Any]) -> ApiKey:
    """Return `key` with other values of its fields; `expires` is in seconds from now."""
    seconds = changes.get("expires")
    ends = {} if seconds is None else {"expires": now() + seconds}
    return replace(key, **{**changes, **ends})


def change(key: ApiKey, what: str) -> Change[None]:
    """Have the key of that name be as `key` says; `what` tells the difference."""
    return Change(f"change key {key.name}: {what}", lambda: _store().change_key(key))


def rotate(key: ApiKey, overlap: float) -> Change[str]:
    """Give a key a new secret, returned this once; the old one opens `overlap` seconds more."""

    def make() -> str:
        secret, digest = _secret()
        _store().change_key(key.rotated(digest, now() + overlap))
        return secret

    return Change(f"give key {key.name} a new secret", make)


def revoke(key: ApiKey) -> Change[Access]:
    """Revoke a key; return who may ask the endpoints then."""

    def make() -> Access:
        _store().drop_key(key.name)
        return access()

    return Change(f"revoke key {key.name}", make)


def require(*, on: bool) -> Change[Access]:
    """Have clients show a key, or let everybody in; return who may ask the endpoints then."""

    def make() -> Access:
        _store().require_keys(on=on)
        return access()

    return Change("ask clients for a key" if on else "let everybody in, without a key", make)


def _store() -> KeyStore:
    return wiring.database(wiring.home())


def _secret() -> tuple[str, str]:
    """Return a new secret, and its digest."""
    secret = f"sk-{secrets.token_urlsafe(32)}"
    return secret, hashlib.sha256(secret.encode()).hexdigest()
