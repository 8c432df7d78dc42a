"""Hosts and ports of a database's address are those that libpq itself reads."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.addresses import parsed, servers
from tests.postgres import PostgresServer

FORMS = {
    "postgresql://u@h1,h2/db": [("h1", 5432), ("h2", 5432)],
    "postgresql://u@h1:5432,h2:5433/db": [("h1", 5432), ("h2", 5433)],
    "postgres://u@h1,h2:5433/db": [("h1", 5432), ("h2", 5433)],
    "postgresql://h1,h2?target_session_attrs=read-write": [("h1", 5432), ("h2", 5432)],
    "postgresql://u:p%40@[::1]:5,[::2]/db": [("::1", 5), ("::2", 5432)],
    "postgresql://u@h1:,h2/db": [("h1", 5432), ("h2", 5432)],
    "postgresql://u@[::1]:5/db": [("::1", 5)],
    "postgresql://u@/db?host=h1,h2&port=1,2": [("h1", 1), ("h2", 2)],
    "postgresql://u@h1/db?host=h3": [("h3", 5432)],
    "postgresql://u@h/db?hostaddr=10.0.0.1": [("10.0.0.1", 5432)],
    "postgresql://u@h/db?port=9": [("h", 9)],
    "postgresql://u@h1?dbname=x": [("h1", 5432)],
    "postgresql:///db": [],
    "postgresql://u@/db?host=/var/run": [],
    "postgresql://u@%2Fvar%2Frun,h2/db": [("h2", 5432)],
    "postgresql://u@%2Fvar%2Frun/db": [],
}


@pytest.mark.parametrize("address", FORMS)
def test_servers_are_those_that_libpq_reads(address: str) -> None:
    theirs = conninfo_to_dict(address)
    hosts = str(theirs.get("hostaddr") or theirs.get("host") or "").split(",")
    ports = str(theirs.get("port") or "").split(",")
    ports += ports[-1:] * (len(hosts) - 1) if len(ports) == 1 else []
    pairs = [(host, int(port or 5432)) for host, port in zip(hosts, ports, strict=True)]
    expected = [(host, port) for host, port in pairs if host and host[0] != "/"]
    assert servers(address, {}) == FORMS[address] == expected


def test_variables_of_libpq_say_what_the_address_does_not() -> None:
    defaults = {"PGHOST": "h5", "PGPORT": "7"}
    assert servers("postgresql:///db", defaults) == [("h5", 7)]
    assert servers("postgresql://h1:1/db", defaults) == [("h1", 1)]
    assert servers("postgresql://h1/db", {"PGHOSTADDR": "10.0.0.1"}) == [("10.0.0.1", 5432)]


@pytest.mark.parametrize("address", ["", "nonsense", "sqlite:////srv/x.db", "postgresql://h:x/db"])
def test_a_file_and_what_can_not_be_read_have_no_server(address: str) -> None:
    assert servers(address, {}) == []


def test_the_password_and_the_rest_of_an_address_stay() -> None:
    url = parsed("postgresql://u:p%40%2C@h1:1,h2:2/db?sslmode=require")
    assert (url.username, url.password, url.database) == ("u", "p@,", "db")
    assert url.query["sslmode"] == "require"


def test_of_several_servers_the_one_that_answers_is_opened(postgres: PostgresServer) -> None:
    account, _, rest = postgres.schema().partition("@")
    name, _, query = rest.removeprefix("/").partition("?")
    folder = next(p for p in query.split("&") if p.startswith("host=")).removeprefix("host=")
    others = "&".join(part for part in query.split("&") if not part.startswith("host="))
    where = f"{quote('/nowhere', safe='')}:5432,{quote(folder, safe='%')}:5432"
    store = SqlDatabase(f"{account}@{where}/{name}?{others}")
    assert list(store.runs()) == []
    store.close()
