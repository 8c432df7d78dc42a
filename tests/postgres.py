"""A PostgreSQL server of the tests: real, at a socket in a folder of its own, ended with them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

PLACES = "/usr/lib/postgresql/*/bin"  # Debian's; elsewhere they are on the path
NOBODY = "nobody"
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # by which its socket is named
    "fsync": "off",  # no test cuts the power
    "max_connections": "120",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
}
SECONDS = 30


def programs() -> Path | None:
    """Return the folder of the server's programs, where they are installed."""
    on_path = shutil.which("initdb")
    newest = sorted(Path("/").glob(f"{PLACES[1:]}/initdb"))
    if on_path:
        return Path(on_path).resolve().parent
    return newest[-1].parent if newest else None


class PostgresServer:
    """A server, as a process of this one: root's start it as somebody else, as it demands."""

    def __init__(self, bin_folder: Path, folder: Path) -> None:
        """Make what it needs in `folder`; words are sorted there as people do, as is usual."""
        self._bin, self._folder = bin_folder, folder
        self._settings = dict(SETTINGS)
        self._user = NOBODY if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(folder / "data"), "-U", "tests", "-A", "trust", "-E", "UTF8",
                  "--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8",
                  "--no-sync")  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._folder / "data", "-k", self._folder, *words],
                stdout=log,
                stderr=log,
                user=self._user,
                group="nogroup" if self._user else None,
                extra_groups=() if self._user else None,
            )
        until = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.05)  # noqa: TID251 - a real server

    @property
    def pid(self) -> int:
        """The process of the server, whose children serve its connections."""
        assert self._process, "it was never started"
        return self._process.pid

    def speaks_tls(self, port: int, signed: tuple[Path, Path]) -> None:
        """Have it listen on loopback too, once started: to who speaks TLS and has a password."""
        own = []
        for file in signed:
            own.append(str(shutil.copy(file, self._folder)))
            Path(own[-1]).chmod(0o600)
            if self._user:
                shutil.chown(own[-1], self._user)
        rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (self._folder / "data/pg_hba.conf").write_text(rules)
        tls = {"ssl": "on", "ssl_cert_file": own[0], "ssl_key_file": own[1]}
        self._settings |= {"listen_addresses": "127.0.0.1", "port": str(port), **tls}

    def sql(self, statement: str) -> None:
        """Have it done, by its owner."""
        self._run("psql", *self._login, "-c", statement, "postgres")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it at once, as a fail-over does; by `SIGINT` as a restart does."""
        if self._process:
            self._process.send_signal(how)
            self._process.wait(SECONDS)

    def schema(self) -> str:
        """Make a new empty schema, and return its URL: cheaper than a database."""
        name = f"tests{next(self._numbers)}"
        self.sql(f"CREATE SCHEMA {name}")
        return f"{self._url('postgres')}&options=-csearch_path%3D{name}"

    def database(self, *options: str) -> str:
        """Make a new empty database by `options` of `createdb`, and return its URL."""
        name = f"tests{next(self._numbers)}"
        self._run("createdb", *self._login, *options, name)
        return self._url(name)

    @property
    def _login(self) -> tuple[str, ...]:
        return ("-h", str(self._folder), "-p", self._settings["port"], "-U", "tests")

    def _url(self, name: str) -> str:
        return f"postgresql://tests@/{name}?host={self._folder}"

    def _answers(self) -> bool:
        words = [self._bin / "pg_isready", "-q", *self._login[:4], "-d", "postgres"]
        return subprocess.run(words, check=False).returncode == 0

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [self._bin / program, *words],
            check=True,
            capture_output=True,
            cwd="/",
            user=self._user,
            group="nogroup" if self._user else None,
            extra_groups=() if self._user else None,
        )


@contextmanager
def server() -> Iterator[PostgresServer]:
    """Have a server up; skip the tests that want one where it is not installed."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("PostgreSQL is not installed: no `initdb` on the path or in Debian's place")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short, and others may enter the way to it
    try:
        running = PostgresServer(bin_folder, folder)
        try:
            running.start()
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
