"""The managed MLflow server: found again, on its port, shut from the outside."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.adapters import mlflow_server
from orchestrator.core.errors import TrackingError


@pytest.fixture
def home(mlflow_home: Path) -> Path:
    return mlflow_home


def _get(uri: str, host: str = "") -> tuple[int, bytes]:
    parts = urlsplit(uri)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    try:
        path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
        connection.request("GET", path, headers={"Host": host or parts.netloc})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_server_that_runs_is_found_and_not_started_again(home: Path) -> None:
    uri = mlflow_server.find(home)
    assert uri
    assert mlflow_server.up(home) == uri
    mlflow_server.check(uri)


def test_it_listens_on_loopback_alone_and_refuses_foreign_hosts(home: Path) -> None:
    uri = str(mlflow_server.find(home))
    assert uri.startswith("http://127.0.0.1:")
    assert _get(uri)[0] == 200
    assert _get(uri, host="evil.example")[0] == 403


def test_its_database_is_in_wal_and_its_artifacts_go_through_the_server(home: Path) -> None:
    connection = sqlite3.connect(home / "mlflow" / "mlflow.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    uri = str(mlflow_server.find(home))
    experiment = json.loads(_get(uri)[1])["experiment"]
    assert experiment["artifact_location"].startswith("mlflow-artifacts:/")


def test_nothing_is_found_in_a_home_without_a_server(tmp_path: Path) -> None:
    assert mlflow_server.find(tmp_path) is None
    assert mlflow_server.down(tmp_path) is False


def test_a_port_that_is_taken_is_left_to_its_owner(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "port").write_text(f"{port}\n")
        chosen = mlflow_server._port(tmp_path)
    assert chosen != port
    assert mlflow_server._port(tmp_path) == chosen, "and remembered"


def test_a_home_that_is_no_folder_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(TrackingError, match=r"MLflow can't be started in '.*file': .*"):
        mlflow_server.up(file)


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "/runs", "http://", "databricks"])
def test_an_address_that_is_no_server_is_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match="is not the address of an MLflow server"):
        mlflow_server.check(uri)


def test_a_server_that_does_not_answer_is_one_clear_line() -> None:
    with pytest.raises(TrackingError, match=r"no MLflow server answers at 'http://127.0.0.1:9'"):
        mlflow_server.check("http://127.0.0.1:9", timeout=1)
