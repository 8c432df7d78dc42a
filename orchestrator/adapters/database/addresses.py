"""The address of a database, in libpq's forms: several hosts, each with a port of its own.

SQLAlchemy knows one host before the query; several it takes as `?host=H1,H2&port=P1,P2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.core.own_host import leads_home

_BACKENDS = ("postgresql", "postgres")
_PORT = "5432"
_SOCKETS = ("/", "@")  # how the folder of a socket begins, or its abstract name


def parsed(address: str | URL) -> URL:
    """Return `address` as SQLAlchemy has it.

    Raises:
        ArgumentError: It is no URL.
        ValueError: A port is no number.
    """
    return address if isinstance(address, URL) else make_url(_with_hosts_in_query(address))


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
