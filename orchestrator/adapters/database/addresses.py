"""The address of a database, in libpq's forms: several hosts, each with a port of its own.

SQLAlchemy knows one host before the query; several it takes as `?host=H1,H2&port=P1,P2`. What of
an address may be shown is said here too: nothing of one of which it can't be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.core.address_passwords import holds_password
from orchestrator.core.own_host import leads_home

_BACKENDS = ("postgresql", "postgres")
_PORT = "5432"
_SOCKETS = ("/", "@")  # how the folder of a socket begins, or its abstract name
_SHOWN = ("host", "hostaddr", "port", "dbname", "user", "service", "sslmode", "sslrootcert")
_SCHEME = re.compile(r"[\w+]+://")
# libpq's other form, `host=h password=x`, which is none of SQLAlchemy's.
_WORDS = re.compile(r"(?:^|\s)(?:host|hostaddr|port|dbname|user|password|service|ssl\w+)\s*=")
_HIDDEN = "***"
_NO_ROOM = re.compile(r"[^@:=?]*")  # what has no part that could be a password


def parsed(address: str | URL) -> URL:
    """Return `address` as SQLAlchemy has it. No error says a word of it.

    Raises:
        ArgumentError: It is no URL.
        ValueError: A port is no number, or it can't be told where the password ends.
    """
    if isinstance(address, URL):
        return address
    try:
        url = make_url(_with_hosts_in_query(address))
    except ValueError:  # which has the port in it, and that may be a password without its host
        url = None
    if url is None or not all(port.isdecimal() for port in _ports(url)):
        message = "its port is no number"
        raise ValueError(message)
    if url.get_backend_name() in _BACKENDS and any("@" in place for place in _places(url)):
        message = "it can't be told where its password ends"
        raise ValueError(message)
    return url


def is_address(text: str) -> bool:
    """Return whether `text` is meant as an address, well written or not; else it is a file."""
    return "://" in text or bool(_WORDS.search(text)) or holds_password(text)


def shown(address: str | URL) -> str:
    """Return `address` as it may be shown: without what is secret, or may be."""
    try:
        url = parsed(address)
    except (SQLAlchemyError, ValueError):
        if _NO_ROOM.fullmatch(str(address)):
            return str(address)
        scheme = _SCHEME.match(str(address))
        return (scheme.group() if scheme else "") + _HIDDEN
    query = {name: value for name, value in url.query.items() if name in _SHOWN}
    return url.set(query=query).render_as_string(hide_password=True)


def _ports(url: URL) -> Iterator[str]:
    if url.get_backend_name() in _BACKENDS:
        yield from (port for port in _listed(url, "port") if port)


def _places(url: URL) -> Iterator[str]:
    """Yield what stands for a host or a database: an abstract socket begins with its @."""
    yield from (url.host or "", url.database or "")
    yield from (host[1:] for host in _listed(url, "host"))


def _listed(url: URL, name: str) -> list[str]:
    values = url.query.get(name, ())
    return ",".join((values,) if isinstance(values, str) else values).split(",")


def servers(address: str, defaults: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return HOST and PORT of each server that `address` names, in its order.

    A file has none, nor has a socket of this host, nor what can't be read. What `address` does
    not say the variables of libpq among `defaults` do (`PGHOST`, `PGHOSTADDR`, `PGPORT`).
    """
    try:
        return _servers(parsed(address), defaults)
    except (SQLAlchemyError, ValueError):
        return []


def seen_elsewhere(address: str, defaults: Mapping[str, str]) -> bool:
    """Return whether other hosts can reach the database at `address`, as far as that tells."""
    try:
        url = parsed(address)
    except (SQLAlchemyError, ValueError):
        return False
    if url.get_backend_name() not in _BACKENDS:
        return False
    if "service" in url.query or defaults.get("PGSERVICE"):  # a file of libpq's has the host
        return True
    return any(not leads_home(host) for host, _ in servers(address, defaults))


def _servers(url: URL, defaults: Mapping[str, str]) -> list[tuple[str, int]]:
    if url.get_backend_name() not in _BACKENDS:
        return []
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    dialect: Any = PGDialect_psycopg()  # type: ignore[no-untyped-call]
    options = dialect.create_connect_args(url)[1]
    names = options.get("hostaddr") or defaults.get("PGHOSTADDR") or options.get("host")
    hosts = str(names or defaults.get("PGHOST") or "").split(",")
    ports = str(options.get("port") or defaults.get("PGPORT") or _PORT).split(",")
    each = repeat(ports[0]) if len(ports) == 1 else chain(ports, repeat(""))
    return [
        (host, int(port or _PORT))
        for host, port in zip(hosts, each, strict=False)
        if host and not host.startswith(_SOCKETS)
    ]


def _with_hosts_in_query(address: str) -> str:
    """Return `address` with its hosts in the query, where there are several, or sockets."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme.partition("+")[0] not in _BACKENDS:
        return address
    before, question, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    account, at, hosts = authority.rpartition("@")
    if "," not in hosts and "%" not in hosts:
        return address
    named = parse_qs(query)
    more = [f"{name}={value}" for name, value in _hosts_and_ports(hosts) if name not in named]
    asked = "&".join([query, *more] if question and query else more)
    return f"{scheme}://{account}{at}{slash}{path}?{asked}"


def _hosts_and_ports(hosts: str) -> Iterator[tuple[str, str]]:
    names, ports = [], []
    for host in hosts.split(","):
        name, colon, port = host.rpartition(":")
        whole = not colon or host.endswith("]")
        names.append(unquote(host if whole else name).strip("[]"))
        ports.append("" if whole else port)
    yield "host", quote(",".join(names), safe=",:")
    if any(ports):
        yield "port", ",".join(ports)
