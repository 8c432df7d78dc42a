"""The way to MLflow: who we are, what an answer means, and connections that end."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.adapters.mlflow_tracker import foreign_artifacts
from orchestrator.adapters.mlflow_tracker.experiment import (
    MetricPoint,
    MlflowExperiment,
    MlflowRun,
)
from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError, RefusedError
from orchestrator.adapters.mlflow_tracker.rest import Rest, ServerAccess
from tests.adapters.mlflow_tracker.seen import Seen


class Answering(ThreadingHTTPServer):
    """A server that says what a test tells it to say, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.answer, self.place = 200, b"{}", ""
        self.closing = False
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answering

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.answer)))
        if self.server.place:
            self.send_header("Location", self.server.place)
        self.end_headers()
        self.wfile.write(self.server.answer)
        self.close_connection = self.server.closing  # and the answer did not say so

    do_POST = do_PUT = do_GET  # noqa: N815 - as above

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as answering:
        thread = threading.Thread(target=answering.serve_forever, args=(0.01,))
        thread.start()
        yield answering
        answering.shutdown()
        thread.join()


@pytest.fixture
def ask() -> Iterator[Callable[..., Rest]]:
    """Return how to make a connection; it is closed at the end."""
    made: list[Rest] = []

    def make(uri: str, **access: object) -> Rest:
        made.append(Rest(uri, ServerAccess(**access)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


Ask = Callable[..., Rest]


def test_one_connection_carries_all_requests(server: Answering, ask: Ask) -> None:
    way = ask(f"{server.uri}/prefix/")
    way.post("runs/create", {"a": 1})
    way.get("experiments/get-by-name", experiment_name="a b")
    way.put_artifact("0/run/artifacts/a b.txt", b"text")
    assert [(method, path) for method, path, _, _ in server.asked] == [
        ("POST", "/prefix/api/2.0/mlflow/runs/create"),
        ("GET", "/prefix/api/2.0/mlflow/experiments/get-by-name?experiment_name=a+b"),
        ("PUT", "/prefix/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts/a%20b.txt"),
    ]
    assert [body for *_, body in server.asked] == [b'{"a": 1}', b"", b"text"]
    assert server.connections == 1


def test_a_connection_that_the_server_closed_is_made_anew(server: Answering, ask: Ask) -> None:
    way = ask(server.uri)
    server.closing = True
    for _ in range(3):
        way.post("runs/create", {})
        _until_closed(way)
    assert server.connections == 3


def _until_closed(way: Rest) -> None:
    connection = way._connection
    assert connection is not None
    assert connection.sock is not None
    assert connection.sock.recv(1, socket.MSG_PEEK) == b""


def test_user_and_password_go_along(server: Answering, ask: Ask) -> None:
    ask(server.uri, user="ada", password="secret", token="other").post("x", {})  # noqa: S106 - a test's
    ask(server.uri.replace("//", "//bob:hush@")).post("x", {})
    ask(server.uri, token="abc").post("x", {})  # noqa: S106 - a test's
    ask(server.uri).post("x", {})
    said = [headers.get("Authorization") for _, _, headers, _ in server.asked]
    assert said == [_basic("ada:secret"), _basic("bob:hush"), "Bearer abc", None]


def _basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def test_a_proxy_is_asked_for_the_whole_address(server: Answering, ask: Ask) -> None:
    ask("http://mlflow.example:5000/x", proxy=server.uri).post("runs/create", {})
    assert server.asked[0][1] == "http://mlflow.example:5000/x/api/2.0/mlflow/runs/create"


def test_certificates_to_trust_are_read(ask: Ask) -> None:
    with pytest.raises(AwayError, match="No such file"):
        ask("https://127.0.0.1:9", certificates="/not/there").post("x", {})
    with pytest.raises(AwayError, match="No such file"):
        ask("https://127.0.0.1:9", identity="/not/there").post("x", {})
    with pytest.raises(AwayError, match="refused"):
        ask("https://127.0.0.1:9", insecure=True).post("x", {})


@pytest.mark.parametrize("status", [400, 404, 409, 413])
def test_what_will_never_be_taken_is_refused_in_the_servers_words(
    server: Answering, ask: Ask, status: int
) -> None:
    server.status = status
    server.answer = b'{"error_code": "INVALID", "message": "no\\n such"}'
    with pytest.raises(RefusedError, match=r"^INVALID: no such$"):
        ask(server.uri).post("x", {})


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
def test_what_may_be_taken_later_means_away(server: Answering, ask: Ask, status: int) -> None:
    server.status, server.answer = status, b"<html>"
    with pytest.raises(AwayError, match=f"{server.uri} answers {status} "):
        ask(server.uri).post("x", {})


def test_a_redirect_says_which_address_to_give(server: Answering, ask: Ask) -> None:
    server.status, server.place = 308, "https://mlflow.example/"
    with pytest.raises(AwayError, match=r"'https://mlflow.example/'; give that as tracking.uri"):
        ask(server.uri).post("x", {})


@pytest.mark.parametrize("answer", [b"<html>", b"[]"])
def test_another_server_than_mlflow_is_away(server: Answering, ask: Ask, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(AwayError, match="not as an MLflow server does"):
        ask(server.uri).post("x", {})


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://127.0.0.1:x", "file:///x"])
def test_no_server_at_all_is_away_and_no_password_is_told(ask: Ask, uri: str) -> None:
    with pytest.raises(AwayError) as caught:
        ask(uri.replace("//", "//bob:hush@")).post("x", {})
    assert "hush" not in str(caught.value)


def test_a_server_that_hangs_is_away_after_a_bounded_time(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(AwayError, match="timed"):
        ask(f"http://127.0.0.1:{mute.getsockname()[1]}", seconds=0.05).post("x", {})


def test_numbers_that_json_lacks_are_written_as_mlflow_reads_them(server: Answering) -> None:
    asked = MlflowExperiment(server.uri, "e")
    values = (float("nan"), float("inf"), float("-inf"), 0.1)
    asked.log("run", metrics=[MetricPoint("k", value, 1, 2) for value in values])
    asked.close()
    sent = json.loads(server.asked[0][3])["metrics"]
    assert [point["value"] for point in sent] == ["NaN", "Infinity", "-Infinity", 0.1]


def test_artifacts_go_by_way_of_the_server_that_takes_them(server: Answering) -> None:
    asked = MlflowExperiment(server.uri, "e")
    asked.text(MlflowRun("run", artifacts="mlflow-artifacts:/7/run/artifacts"), "a.txt", "text")
    asked.close()
    assert server.asked[0][1].endswith("/artifacts/7/run/artifacts/a.txt")


@pytest.mark.filterwarnings("ignore")  # MLflow's
def test_artifacts_that_the_server_does_not_take_are_written_by_mlflow_itself(
    uri: str, experiment: str
) -> None:
    asked = MlflowExperiment(uri, experiment)
    asked.connect()
    shown = asked.create("run", {"orchestrator.key": "run"}, 1.0)
    asked.close()
    shown.artifacts = shown.artifacts.replace("mlflow-artifacts:/", "s3://bucket/")
    asked.text(shown, "a.txt", "text")
    assert Seen(uri, experiment).files("run") == {"a.txt"}
    with pytest.raises(RefusedError, match="not found"):
        foreign_artifacts.write(uri, "0" * 32, "a.txt", "text")
    with pytest.raises(AwayError, match="refused"):
        foreign_artifacts.write("http://127.0.0.1:9", "0" * 32, "a.txt", "text")


def test_the_tracker_imports_no_mlflow() -> None:
    script = "import orchestrator.adapters.mlflow_tracker, sys; print('mlflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
