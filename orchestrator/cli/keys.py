"""`orchestrator keys`: who may ask the endpoints. Without any key they are open."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict

from orchestrator import wiring
from orchestrator.cli import tables
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.keys import ApiKey

COLUMNS = ("NAME", "MODELS", "#REQUESTS/MIN", "#TOKENS/MIN", "EXPIRES")
DAY = 86_400.0


def run(args: argparse.Namespace) -> Exit:
    """List the keys, add one, or revoke one."""
    store = wiring.endpoint_store(wiring.home())
    if args.action == "list":
        return _list(args, store.api_keys())
    if not args.name:
        raise ConfigError([Problem("keys", "no name is given", f"keys {args.action} NAME")])
    if args.action == "revoke":
        store.drop_key(args.name)
        print(f"Key {args.name} opens nothing any more.")
        return Exit.SUCCEEDED
    secret = f"sk-{secrets.token_urlsafe(32)}"
    days = args.days
    store.add_key(
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
    return Exit.SUCCEEDED


def _list(args: argparse.Namespace, found: Sequence[ApiKey]) -> Exit:
    if args.json:
        shown = [{k: v for k, v in asdict(key).items() if k != "digest"} for key in found]
        print(json.dumps(shown, indent=2))
        return Exit.SUCCEEDED
    rows = [_row(key, wiring.clock().now()) for key in found]
    out = tables.console()
    out.print(tables.table(COLUMNS, rows) if rows else "No keys: the endpoints are open.")
    return Exit.SUCCEEDED


def _row(key: ApiKey, now: float) -> tuple[str, ...]:
    left = None if key.expires is None else key.expires - now
    ends = "never" if left is None else "expired" if left < 0 else f"in {tables.duration(left)}"
    limits = (key.requests, key.tokens)
    shown = ("-" if limit is None else str(limit) for limit in limits)
    return (key.name, ", ".join(key.models) or "all", *shown, ends)
