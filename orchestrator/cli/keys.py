"""`orchestrator keys`: who may ask the endpoints."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from orchestrator.cli import arguments, key_limits
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints.api_keys import ApiKey, Requirement
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.display import tables
from orchestrator.service import keys
from orchestrator.service.keys import Access

COLUMNS = ("NAME", "MODELS", "#REQUESTS/MIN", "#TOKENS/MIN", "EXPIRES")
DAY = 86_400.0
SECRET = ("digest", "previous")


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """List the keys, add one, revoke one, or say whether one is needed."""
    if args.action == "list":
        return _list(args)
    if args.action == "require":
        return [_require(args.name)]
    if not args.name:
        raise ConfigError([Problem("keys", "no name is given", f"keys {args.action} NAME")])
    if args.action == "add":
        return [_add(args)]
    key = keys.find(args.name)
    return _show(key, json=args.json) if args.action == "show" else [_change(args, key)]


def _change(args: argparse.Namespace, key: ApiKey) -> Step:
    if args.action == "set":
        return _set(args, key)
    if args.action == "rotate":
        return Step.of(keys.rotate(key, _overlap(args)), _tell)
    return Step.of(keys.revoke(key), partial(_revoked, key.name))


def _add(args: argparse.Namespace) -> Step:
    plain = ApiKey(
        name=args.name,
        digest="",
        models=tuple(args.model),
        requests=args.requests,
        tokens=args.tokens,
    )
    ends = {} if args.days is None else {"expires": args.days * DAY}
    key = keys.limited(plain, {**ends, **key_limits.parsed(args.changes)})
    change = keys.add(key)
    _warn_of_unknown(key)
    return Step.of(change, _tell)


def _set(args: argparse.Namespace, key: ApiKey) -> Step:
    if not args.changes:
        what = "nothing is to change"
        raise ConfigError([Problem("keys", what, f"keys set {args.name} requests=60")])
    key = keys.limited(key, key_limits.parsed(args.changes))
    _warn_of_unknown(key)
    change = keys.change(key, " ".join(args.changes))
    return Step.of(change, lambda _: print(f"Key {key.name} is changed."))


def _warn_of_unknown(key: ApiKey) -> None:
    unknown = keys.unknown_models(key)
    if unknown:
        line = f"warning: no endpoint {', '.join(map(repr, unknown))} yet"
        tables.console(stderr=True).print(line)


def _overlap(args: argparse.Namespace) -> float:
    try:
        return key_limits.seconds(args.overlap)
    except argparse.ArgumentTypeError as error:
        raise ConfigError([Problem("--overlap", str(error), "write 1h")]) from error


def _show(key: ApiKey, *, json: bool) -> Exit:
    shown = {name: value for name, value in asdict(key).items() if name not in SECRET}
    shown["spent"] = keys.spent(key)
    if json:
        print(tables.as_json(shown))
        return Exit.SUCCEEDED
    for name, value in shown.items():
        tables.console().print(f"{name}: {'-' if value in (None, '', ()) else value}")
    return Exit.SUCCEEDED


def _tell(secret: str) -> None:
    print(secret)
    tables.console(stderr=True).print("It is shown this once: only its hash is kept.")


def _require(answer: str | None) -> Step:
    if answer not in {"on", "off"}:
        what = f"{arguments.shown(answer or '')} says not whether keys are needed"
        raise ConfigError([Problem("keys", what, "write keys require on, or keys require off")])
    return Step.of(keys.require(on=answer == "on"), lambda access: print(_follows(access)))


def _revoked(name: str, access: Access) -> None:
    closed = access.required is Requirement.OFF or not access.keys
    follows = f" {_follows(access)}" if closed else ""
    print(f"Key {name} opens nothing any more.{follows}")


def _follows(access: Access) -> str:
    """Return who may ask the endpoints."""
    if access.required is Requirement.OFF:
        return "The endpoints are open to everybody: `keys require on` asks for keys."
    if access.required is Requirement.UNKNOWN:
        return "No keys: the endpoints answer to this machine alone, until `keys add NAME`."
    if not access.keys:
        return "No key is left, so nobody gets in: `keys add NAME`, or `keys require off`."
    return "Clients must show a key."


def _list(args: argparse.Namespace) -> Exit:
    access = keys.access()
    if args.json:
        shown = [{k: v for k, v in asdict(key).items() if k not in SECRET} for key in access.keys]
        print(tables.as_json(shown))
        return Exit.SUCCEEDED
    out, now = tables.console(), keys.now()
    if access.keys:
        out.print(tables.table(COLUMNS, [_row(key, now) for key in access.keys]))
    if not access.keys or access.required is Requirement.OFF:
        out.print(_follows(access))
    return Exit.SUCCEEDED


def _row(key: ApiKey, now: float) -> tuple[str, ...]:
    left = math.inf if key.expires is None else key.expires - now
    ends = (
        "never" if left == math.inf else f"in {tables.duration(left)}" if left > 0 else "expired"
    )
    limits = (key.requests, key.tokens)
    shown = ("-" if limit is None else str(limit) for limit in limits)
    return (key.name, ", ".join(key.models) or "all", *shown, ends)
