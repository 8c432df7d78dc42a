"""Add an OpenAI-compatible server that somebody else runs to an endpoint, as a revision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import wiring
from orchestrator.core.address_passwords import holds_password, password_problems
from orchestrator.core.endpoints.life import (
    WHOLE,
    EndpointEvent,
    RevisionAdded,
    RevisionReady,
    SharesMoved,
)
from orchestrator.core.errors import ConfigError, Problem, shown
from orchestrator.core.spec.outside_servers import Outside, is_address
from orchestrator.service.change import Change

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")  # of an endpoint
# A header that HTTP itself, or the gateway, does not set.
_HEADER = re.compile(
    r"(?!(?:host|connection|content-[a-z]+|transfer-encoding|te|upgrade|expect)\s*:)"
    r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: *[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class OutsideRevision:
    """A revision that is a server outside, to be added; `notes` says why it gets no traffic."""

    change: Change[None]
    notes: tuple[str, ...] = ()


def deploy_outside(endpoint: str, server: Outside) -> OutsideRevision:
    """Add a server that is there; the first revision of an endpoint gets all its traffic.

    One that does not list the model gets none by itself.

    Raises:
        ConfigError: With all that is wrong with the name, the address, the key or a header.
        ServingError: The server does not answer: it would get traffic.
    """
    problems = list(_problems(endpoint, server))
    if problems:
        raise ConfigError(problems)
    store = wiring.database(wiring.home())
    life = store.endpoint(endpoint)
    known = wiring.served_models(server)
    number = life.next_number
    events: list[EndpointEvent] = [RevisionAdded(number, outside=server), RevisionReady(number)]
    what = f"add r{number} of {endpoint}, the server at {server.address}"
    notes: tuple[str, ...] = ()
    if known is not None and server.model not in known:
        names = ", ".join(known) or "none"
        lists = f"It lists no model {server.model!r} (it has {names})"
        notes = (f"{lists}: it gets no traffic by itself.",)
    elif not life.shares:
        events.append(SharesMoved({number: WHOLE}, "the first revision"))
        what += ", and give it all traffic"
    change = Change(what, lambda: store.follow(life, events, store.now()))
    return OutsideRevision(change, notes)


def absolute(file: str) -> str:
    """Return the path of a file that is named, good in any folder."""
    return str(Path(file).absolute()) if file else ""


def _problems(endpoint: str, server: Outside) -> Iterator[Problem]:
    if not NAME.fullmatch(endpoint):
        what = f"{shown(endpoint)} is no name of an endpoint"
        yield Problem("deploy", what, f"a name matches {NAME.pattern}")
    if holds_password(server.address):
        yield from password_problems("--address", server.address, "name it by --key-file FILE")
    elif not is_address(server.address):
        what = f"{shown(server.address)} is no address of a server"
        yield Problem("--address", what, "write http://HOST:PORT/v1")
    if server.key_variable and not wiring.variable(server.key_variable):
        what = f"the environment variable {shown(server.key_variable)} is empty"
        hint = "set it to the server's key here, and where `orchestrator up` starts the gateway"
        yield Problem("--key-variable", what, hint)
    if server.key_header and not _HEADER.fullmatch(f"{server.key_header}: x"):
        what = f"{shown(server.key_header)} is no header of a request"
        yield Problem("--key-header", what, "write its name, such as api-key")
    for line in server.headers:
        if not _HEADER.fullmatch(line):
            what = f"{shown(line)} is no header of a request"
            yield Problem("--header", what, "write 'NAME: VALUE'")
