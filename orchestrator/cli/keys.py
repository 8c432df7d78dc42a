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
from dataclasses import asdict
from functools import partial

from orchestrator import wiring
from orchestrator.cli import arguments, tables
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.keys import ApiKey, Requirement

COLUMNS = ("NAME", "MODELS", "#REQUESTS/MIN", "#TOKENS/MIN", "EXPIRES")
DAY = 86_400.0


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
    there = args.name in {key.name for key in known}
    if args.action == "revoke":
        if not there:
            names = ", ".join(key.name for key in known) or "none"
            raise NotFoundError(f"no key {args.name!r}; there are: {names}")
        return [Step(f"revoke key {args.name}", partial(_revoke, args.name))]
    if there:
        what = f"there is a key {args.name!r}"
        raise ConfigError([Problem("keys", what, "revoke it first, or take another name")])
    opens = ", ".join(args.model) or "all endpoints"
    return [Step(f"add key {args.name}, which opens {opens}", partial(_add, args))]


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


def _add(args: argparse.Namespace) -> None:
    secret = f"sk-{secrets.token_urlsafe(32)}"
    days = args.days
    wiring.endpoint_store(wiring.home()).add_key(
        ApiKey(
            name=args.name,
            digest=hashlib.sha256(secret.encode()).hexdigest(),
            models=tuple(args.model),
            requests=args.requests,
            tokens=args.tokens,
            expires=None if days is None else wiring.clock().now() + days * DAY,
        )
    )
    print(secret)
    tables.console(stderr=True).print("It is shown this once: only its hash is kept.")


def _list(args: argparse.Namespace, found: Sequence[ApiKey], required: Requirement) -> Exit:
    if args.json:
        shown = [{k: v for k, v in asdict(key).items() if k != "digest"} for key in found]
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
