"""A run is handed over with what its controller needs, sealed; what would not do is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.raycluster import handed_over
from orchestrator.core.errors import ClusterError, ConfigError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.settings import Settings
from tests.build import plan, stage

HEAD, SERVER = "h0:6379", "http://h0:8265"
DATABASE = "postgresql://orchestrator:pass@db/orchestrator"


class Job:
    """A job that has succeeded."""

    def status(self) -> str:
        return "SUCCEEDED"

    def last_words(self) -> str:
        return ""

    def stop(self) -> None:
        pass


class Head:
    """A head that takes what it is handed; `jobs` and `checked` tell what that was."""

    def __init__(self, shows: str = "Bearer abc", *, here: bool = False) -> None:
        self.checked: list[str] = []
        self.jobs: list[tuple[str, Sequence[str], Mapping[str, bytes]]] = []
        self._shows, self._here = shows, here

    def is_here(self, host: str) -> bool:
        return self._here or host == "127.0.0.1"

    def token(self) -> str:
        return self._shows

    def job_server(self, address: str) -> str:
        return f"http://{address.partition(':')[0]}:8265"

    def check(self, server: str) -> None:
        self.checked.append(server)

    def submit(self, server: str, words: Sequence[str], files: Mapping[str, bytes]) -> Job:
        self.jobs.append((server, words, files))
        return Job()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a cluster elsewhere, and an environment with credentials."""
    for name in os.environ:  # noqa: TID251 - what is handed over
        if name.startswith(("AWS_", "MLFLOW_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    monkeypatch.setenv("HF_TOKEN", "hf-s3cr3t")
    monkeypatch.setenv("PATIENCE", "no credential")
    return wiring.settings(["pipeline=noop", f"cluster.address={HEAD}"])


def test_what_is_handed_over_is_sealed_and_its_command_tells_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head()
    planned = plan(replace(stage("s"), secrets={"HF_TOKEN": "HF_TOKEN"}))
    wiring.database(tmp_path).create(RunHeader(run="run-1", plan=planned), 1.0)
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    assert wiring.hands_far(settings, head)
    wiring.submit(settings, tmp_path, "run-1", ["--take-over"], head)
    ((server, words, files),) = head.jobs
    assert server == SERVER
    assert words[-3:] == ["_drive", "run-1", "--take-over"]
    assert "s3cr3t" not in repr((words, files))
    opened = handed_over.opened("run-1", files[handed_over.FILE], b"Bearer abc")
    assert (opened["AWS_SECRET_ACCESS_KEY"], opened["HF_TOKEN"]) == ("s3cr3t", "hf-s3cr3t")
    assert not opened.keys() & {"ORCHESTRATOR_HOME", "PATIENCE"}


def test_the_controller_takes_it_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_HOME", "")  # what the test leaves is taken back
    monkeypatch.delenv("ORCHESTRATOR_HOME")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    sealed = handed_over.seal("run-1", {"AWS_SECRET_ACCESS_KEY": "s3cr3t"}, b"Bearer abc")
    Path(handed_over.FILE).write_bytes(sealed)
    wiring.take_over_environment("run-1", Head())
    assert wiring.variable("AWS_SECRET_ACCESS_KEY") == "s3cr3t"
    assert wiring.variable("ORCHESTRATOR_HOME") == str(Path.home() / ".orchestrator")
    assert not Path(handed_over.FILE).exists()
    wiring.take_over_environment("run-1", Head())  # who was handed nothing has its environment


@pytest.mark.parametrize(
    "database",
    [
        "",
        "sqlite:////srv/events.db",
        "postgresql:///db",
        "postgresql://u@localhost/db",
        "postgres://u@127.0.0.1:5432,[::1]:5433/db",
        "postgresql://u@/db?host=/var/run/postgresql",
    ],
)
def test_a_database_that_the_head_does_not_see_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", database)
    with pytest.raises(ConfigError, match="does not see the database of this home"):
        wiring.check_handing_over(settings, Head())


@pytest.mark.parametrize(
    "database",
    [
        "postgresql://u@db,localhost/db",
        "postgres://u@/db?host=db",
        "postgresql:///db?service=ours",
    ],
)
def test_a_database_that_the_head_may_see_is_taken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", database)
    head = Head()
    wiring.check_handing_over(settings, head)
    assert head.checked == [SERVER], "all else is known: its job server is asked"


def test_credentials_do_not_travel_unsealed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", DATABASE)
    with pytest.raises(ConfigError, match=r"AWS_SECRET_ACCESS_KEY, ORCHESTRATOR_DATABASE.* would"):
        wiring.check_handing_over(settings, Head(""))
    monkeypatch.setenv("ORCHESTRATOR_SECRET", "of-all-the-hosts")
    wiring.check_handing_over(settings, Head(""))


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_HEADERS", "FSSPEC_S3", "MLFLOW_ANYTHING"])
def test_whatever_is_handed_over_needs_a_secret(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", "postgresql://u@db/x?password=pw")
    monkeypatch.setenv(name, "x")
    monkeypatch.delenv("ORCHESTRATOR_SECRET", raising=False)
    with pytest.raises(ConfigError, match=f"{name}.* would travel unsealed"):
        wiring.check_handing_over(settings, Head(""))
    with pytest.raises(ClusterError, match="this host has no secret for it"):
        handed_over.seal("run-1", {name: "x"}, b"")


def test_on_the_same_host_the_secret_of_the_home_seals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("", here=True)
    monkeypatch.delenv("ORCHESTRATOR_SECRET", raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    wiring.database(tmp_path).create(RunHeader(run="run-1", plan=plan(stage("s"))), 1.0)
    near = wiring.settings(["pipeline=noop", "cluster.address=127.0.0.1:6379"])
    wiring.submit(near, tmp_path, "run-1", (), head)
    ((_, words, files),) = head.jobs
    assert f"ORCHESTRATOR_HOME={tmp_path}" in words
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    Path(handed_over.FILE).write_bytes(files[handed_over.FILE])
    wiring.take_over_environment("run-1", head)
    assert wiring.variable("AWS_SECRET_ACCESS_KEY") == "s3cr3t"


def test_paths_of_this_host_do_not_travel_and_are_named(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    present = (
        "AWS_CA_BUNDLE",
        "PGSSLROOTCERT",
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
        "FSSPEC_X_KEY",
    )
    absent = ("PGPASSFILE", "AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS")
    for name in present:
        monkeypatch.setenv(name, str(file))
    for name in absent:
        monkeypatch.setenv(name, "/absent/file")
    stays = {
        "PGSSLMODE": "verify-full",
        "PGDATABASE": tmp_path.name,
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials",
        "AWS_ENDPOINT_URL": "https://s3.example/",
    }
    for name, value in stays.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", DATABASE)
    head = Head()
    wiring.check_handing_over(settings, head)
    named = ", ".join(sorted((*present, *absent)))
    line = f"not handed over: {named}, of files of this host; the head has its own"
    assert [record.getMessage() for record in caplog.records] == [line]
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", "")
    wiring.database(tmp_path).create(RunHeader(run="run-1", plan=plan(stage("s"))), 1.0)
    wiring.submit(settings, tmp_path, "run-1", (), head)
    ((_, _, files),) = head.jobs
    opened = handed_over.opened("run-1", files[handed_over.FILE], b"Bearer abc")
    assert not opened.keys() & {*present, *absent}
    assert stays.items() <= opened.items()


def test_a_job_server_alone_drives_nothing_here_but_jobs_of_it_know_their_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        settings = wiring.settings(["pipeline=noop", "tracking=none", f"cluster.address={url}"])
        with pytest.raises(ClusterError, match="are handed over alone; add --detach"):
            wiring.check_services(settings, tmp_path, gateway=False)
    assert wiring.cluster_address(settings) == url
    monkeypatch.setenv("RAY_ADDRESS", HEAD)
    assert wiring.cluster_address(settings) == HEAD
