"""PostgreSQL by TLS: a server that is proved is used, and any other one is refused in a line."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase, transactions
from orchestrator.core.errors import StoreError
from tests.certificates import Authority
from tests.ports import free_port
from tests.postgres import PostgresServer, programs

PASSWORD = "correct-horse-42"  # noqa: S105 - of this test


@dataclass
class Guarded:
    """A server that takes TLS alone; `url` has the account, `ca` is the file of who signs."""

    url: str
    ca: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("PostgreSQL is not installed: no `initdb` on the path or in Debian's place")
    signer, port = Authority(tmp_path_factory.mktemp("ca")), free_port()
    with tempfile.TemporaryDirectory(prefix="pg") as name:  # short, as names of sockets are
        server = PostgresServer(bin_folder, Path(name))
        server.speaks_tls(port, signer.certify("127.0.0.1"))
        try:
            server.start()
            server.sql(f"CREATE ROLE ann LOGIN PASSWORD '{PASSWORD}'")
            server.sql("CREATE DATABASE runs OWNER ann")
            yield Guarded(f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}/runs", signer.file)
        finally:
            server.stop()


def test_a_server_that_is_proved_is_spoken_to_by_tls(guarded: Guarded) -> None:
    store = SqlDatabase(f"{guarded.url}?sslmode=verify-full&sslrootcert={guarded.ca}")
    with store._reading() as connection:
        asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.exec_driver_sql(asked).scalar() is True
    assert not store.runs(1)
    store.close()


@pytest.mark.parametrize(
    ("change", "query", "line"),
    [
        (("", ""), "sslmode=verify-full&sslrootcert={other}", "name who signs for the server"),
        (("", ""), "sslmode=verify-full&sslrootcert=/no/such.pem", "name who signs for the serv"),
        (("127.0.0.1", "localhost"), "sslmode=verify-full&sslrootcert={ca}", "write the host as"),
        ((PASSWORD, "hunter2"), "sslmode=verify-full&sslrootcert={ca}", "check the user and the"),
        (("", ""), "sslmode=disable", "no encryption; add .sslmode=verify-full&sslrootcert=FILE"),
    ],
    ids=("another authority", "no authority", "another name", "another password", "no TLS"),
)
def test_what_is_not_as_it_should_be_is_a_line(
    guarded: Guarded, tmp_path: Path, change: tuple[str, str], query: str, line: str
) -> None:
    other = Authority(tmp_path, "somebody else").file
    url = f"{guarded.url.replace(*change)}?{query.format(ca=guarded.ca, other=other)}"
    assert re.search(line, transactions.refusal(url)), "a node says the same"
    with pytest.raises(StoreError, match=line) as caught:
        SqlDatabase(url)
    said = str(caught.value)
    assert "\n" not in said
    assert PASSWORD not in said
    assert "hunter2" not in said
