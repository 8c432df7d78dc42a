"""`orchestrator deploy`: add a revision to an endpoint, without any traffic.

`deploy RUN [KEY=VALUE...]` deploys what a run has made, `deploy ENDPOINT [KEY=VALUE...]` what an
endpoint serves; with `--address URL` it takes an OpenAI-compatible server that somebody else runs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator import wiring
from orchestrator.cli import arguments, endpoints, switch
from orchestrator.cli.steps import Step
from orchestrator.core.endpoints.life import (
    WHOLE,
    EndpointEvent,
    EndpointLife,
    RevisionAdded,
    RevisionReady,
    SharesMoved,
)
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.spec.outside_servers import Outside

# A header that HTTP itself, or the gateway, does not set.
_HEADER = re.compile(
    r"(?!(?:host|connection|content-[a-z]+|transfer-encoding|te|upgrade|expect)\s*:)"
    r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: *[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?",
    re.IGNORECASE,
)


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Add a revision."""
    return _outside(args) if args.address else _ours(args)


def _ours(args: argparse.Namespace) -> Sequence[Step]:
    made, words, weights = switch.source(args.name, args.overrides)
    serving = [name for name, stage in made.stages.items() if stage.planned.stage.endpoint]
    if not serving:
        what = f"run {made.header.run!r} has no stage with an endpoint"
        raise ConfigError([Problem("deploy", what, "name one that serves")])
    quiet = [f"pipeline.stages.{name}.endpoint.rollout.steps=[]" for name in serving]
    way = switch.Way(unqualified=args.unqualified, weights=weights)
    return switch.steps_of(made, [*words, *quiet], way, name="deploy")


def _outside(args: argparse.Namespace) -> Sequence[Step]:
    """Return how to add a server that is there: one that does not answer would get traffic."""
    _check(args)
    life = wiring.endpoint_store(wiring.home()).endpoint(args.name)
    model = args.model or args.name
    far = Outside(
        address=args.address,
        model=model,
        key_variable=args.key_variable,
        key_file=_whole(args.key_file),
        key_header=args.key_header,
        headers=tuple(args.header),
        ca_file=_whole(args.ca_file),
        proxy=args.proxy,
    )
    known = wiring.served_models(far)
    number = life.next_number
    events: list[EndpointEvent] = [RevisionAdded(number, outside=far), RevisionReady(number)]
    what = f"add r{number} of {args.name}, the server at {args.address}"
    if known is not None and model not in known:
        names = ", ".join(known) or "none"
        print(f"It lists no model {model!r} (it has {names}): it gets no traffic by itself.")
    elif not life.shares:
        events.append(SharesMoved({number: WHOLE}, "the first revision"))
        what += ", and give it all traffic"
    return [Step(what, partial(_add, life, events))]


def _whole(file: str) -> str:
    return str(Path(file).absolute()) if file else ""


def _check(args: argparse.Namespace) -> None:
    problems = []
    if not arguments.ENDPOINT.fullmatch(args.name):
        what = f"{arguments.shown(args.name)} is no name of an endpoint"
        hint = f"a name matches {arguments.ENDPOINT.pattern}"
        problems.append(Problem("deploy", what, hint))
    if not _is_address(args.address):
        what = f"{arguments.shown(args.address)} is no address of a server"
        problems.append(Problem("--address", what, "write http://HOST:PORT/v1"))
    if args.key_variable and not wiring.variable(args.key_variable):
        what = f"the environment variable {arguments.shown(args.key_variable)} is empty"
        hint = "set it to the server's key here, and where `orchestrator up` starts the gateway"
        problems.append(Problem("--key-variable", what, hint))
    if args.key_header and not _HEADER.fullmatch(f"{args.key_header}: x"):
        what = f"{arguments.shown(args.key_header)} is no header of a request"
        problems.append(Problem("--key-header", what, "write its name, such as api-key"))
    for line in args.header:
        if not _HEADER.fullmatch(line):
            what = f"{arguments.shown(line)} is no header of a request"
            problems.append(Problem("--header", what, "write 'NAME: VALUE'"))
    if problems:
        raise ConfigError(problems)


def _is_address(text: str) -> bool:
    """Return whether it is http or https, with a host and, at most, a port that there can be."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _add(life: EndpointLife, events: Sequence[EndpointEvent]) -> None:
    store = wiring.endpoint_store(wiring.home())
    store.follow(life, events, wiring.clock().now())
    endpoints.show({life.name: store.endpoint(life.name)})
