"""`orchestrator keys`: who may ask the endpoints.

Whether a key is needed is a setting of its own: the first `keys add` switches it on, and `keys
require off` alone switches it off. Revoking the last key lets nobody in.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

from orchestrator import wiring
from orchestrator.cli import arguments, key_limits, tables
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints.keys import ApiKey, Requirement
from orchestrator.core.endpoints.usage import month_of
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.ports import EndpointLog

COLUMNS = ("NAME", "MODELS", "#REQUESTS/MIN", "#TOKENS/MIN", "EXPIRES")
DAY = 86_400.0
SECRET = ("digest", "previous")


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """List the keys, add one, revoke one, or say whether one is needed."""
    store = wiring.endpoint_store(wiring.home())
    known = store.api_keys()
    if args.action == "list":
        return _list(args, known, store.key_rules().required)
    if args.action == "require":
        return _require(args.name)
    if not args.name:
        raise ConfigError([Problem("keys", "no name is given", f"keys {args.action} NAME")])
    there = {key.name: key for key in known}.get(args.name)
    if args.action == "add":
        return _adding(args, there, store)
    if there is None:
        names = ", ".join(key.name for key in known) or "none"
        raise NotFoundError(f"no key {args.name!r}; there are: {names}")
    return _changing(args, there, store)


def _changing(
    args: argparse.Namespace, there: ApiKey, store: EndpointLog
) -> Exit | Sequence[Step]:
    if args.action == "show":
        return _show(there, json=args.json)
    if args.action == "set":
        return _setting(args, there, store)
    if args.action == "rotate":
        return [Step(f"give key {args.name} a new secret", partial(_rotate, args, there))]
    return [Step(f"revoke key {args.name}", partial(_revoke, args.name))]


def _adding(args: argparse.Namespace, there: ApiKey | None, store: EndpointLog) -> list[Step]:
    if there is not None:
        what = f"there is a key {args.name!r}"
        hint = "change it by keys set, revoke it first, or take another name"
        raise ConfigError([Problem("keys", what, hint)])
    now, days = wiring.clock().now(), args.days
    plain = ApiKey(
        name=args.name,
        digest="",
        models=tuple(args.model),
        requests=args.requests,
        tokens=args.tokens,
        expires=None if days is None else now + days * DAY,
    )
    key = key_limits.changed(plain, args.changes, now)
    _warn_of_unknown(key, store)
    opens = ", ".join(key.models) or "all endpoints"
    return [Step(f"add key {key.name}, which opens {opens}", partial(_add, key))]


def _setting(args: argparse.Namespace, there: ApiKey, store: EndpointLog) -> list[Step]:
    if not args.changes:
        what = "nothing is to change"
        raise ConfigError([Problem("keys", what, f"keys set {args.name} requests=60")])
    key = key_limits.changed(there, args.changes, wiring.clock().now())
    _warn_of_unknown(key, store)

    def do() -> None:
        wiring.endpoint_store(wiring.home()).change_key(key)
        print(f"Key {key.name} is changed.")

    return [Step(f"change key {key.name}: {' '.join(args.changes)}", do)]


def _warn_of_unknown(key: ApiKey, store: EndpointLog) -> None:
    unknown = [model for model in key.models if model not in store.endpoints()]
    if unknown:
        line = f"warning: no endpoint {', '.join(map(repr, unknown))} yet"
        tables.console(stderr=True).print(line)


def _show(key: ApiKey, *, json: bool) -> Exit:
    spent = wiring.usage_store(wiring.home()).spent(month_of(wiring.clock().now()))
    shown = {name: value for name, value in asdict(key).items() if name not in SECRET}
    shown["spent"] = spent.get(key.name, 0.0)
    if json:
        print(tables.as_json(shown))
        return Exit.SUCCEEDED
    for name, value in shown.items():
        tables.console().print(f"{name}: {'-' if value in (None, '', ()) else value}")
    return Exit.SUCCEEDED


def _secret() -> tuple[str, str]:
    """Return a new secret, and its digest."""
    secret = f"sk-{secrets.token_urlsafe(32)}"
    return secret, hashlib.sha256(secret.encode()).hexdigest()


def _tell(secret: str) -> None:
    print(secret)
    tables.console(stderr=True).print("It is shown this once: only its hash is kept.")


def _rotate(args: argparse.Namespace, key: ApiKey) -> None:
    try:
        overlap = key_limits.seconds(args.overlap)
    except argparse.ArgumentTypeError as error:
        raise ConfigError([Problem("--overlap", str(error), "write 1h")]) from error
    secret, digest = _secret()
    changed = key.rotated(digest, wiring.clock().now() + overlap)
    wiring.endpoint_store(wiring.home()).change_key(changed)
    _tell(secret)


def _require(said: str | None) -> Sequence[Step]:
    if said not in {"on", "off"}:
        what = f"{arguments.shown(said or '')} says not whether keys are needed"
        raise ConfigError([Problem("keys", what, "write keys require on, or keys require off")])
    on = said == "on"
    what = "ask clients for a key" if on else "let everybody in, without a key"

    def do() -> None:
        store = wiring.endpoint_store(wiring.home())
        store.require_keys(on=on)
        print(_follows(store.key_rules().required, len(store.api_keys())))

    return [Step(what, do)]


def _revoke(name: str) -> None:
    store = wiring.endpoint_store(wiring.home())
    store.drop_key(name)
    left, required = len(store.api_keys()), store.key_rules().required
    closed = required is Requirement.OFF or not left
    follows = f" {_follows(required, left)}" if closed else ""
    print(f"Key {name} opens nothing any more.{follows}")


def _follows(required: Requirement, keys: int) -> str:
    """Return who may ask the endpoints."""
    if required is Requirement.OFF:
        return "The endpoints are open to everybody: `keys require on` asks for keys."
    if required is Requirement.UNKNOWN:
        return "No keys: the endpoints answer to this machine alone, until `keys add NAME`."
    if not keys:
        return "No key is left, so nobody gets in: `keys add NAME`, or `keys require off`."
    return "Clients must show a key."


def _add(key: ApiKey) -> None:
    secret, digest = _secret()
    wiring.endpoint_store(wiring.home()).add_key(replace(key, digest=digest))
    _tell(secret)


def _list(args: argparse.Namespace, found: Sequence[ApiKey], required: Requirement) -> Exit:
    if args.json:
        shown = [{k: v for k, v in asdict(key).items() if k not in SECRET} for key in found]
        print(tables.as_json(shown))
        return Exit.SUCCEEDED
    rows = [_row(key, wiring.clock().now()) for key in found]
    out = tables.console()
    if rows:
        out.print(tables.table(COLUMNS, rows))
    if not rows or required is Requirement.OFF:
        out.print(_follows(required, len(rows)))
    return Exit.SUCCEEDED


def _row(key: ApiKey, now: float) -> tuple[str, ...]:
    left = math.inf if key.expires is None else key.expires - now
    ends = (
        "never" if left == math.inf else f"in {tables.duration(left)}" if left > 0 else "expired"
    )
    limits = (key.requests, key.tokens)
    shown = ("-" if limit is None else str(limit) for limit in limits)
    return (key.name, ", ".join(key.models) or "all", *shown, ends)
