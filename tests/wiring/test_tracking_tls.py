"""An MLflow server behind TLS and a password is proved before a run, and by the tracker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError
from orchestrator.adapters.mlflow_tracker.rest import Rest
from orchestrator.core.errors import TrackingError
from orchestrator.wiring import tracking
from tests.certificates import Authority, behind_tls

PASSWORD = "correct-horse-42"  # noqa: S105 - of this test


class Answering(BaseHTTPRequestHandler):
    """Says to everything that all is well."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "OK"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Print nothing."""


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server behind TLS, of which the environment says all that is needed."""
    signer = Authority(tmp_path / "ca")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(signer.file))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        signed = signer.certify("127.0.0.1")
        with behind_tls(server.server_port, signed, f"ann:{PASSWORD}") as port:
            yield f"https://127.0.0.1:{port}"
        server.shutdown()
        thread.join()


def asked(uri: str) -> object:
    way = Rest(uri, tracking.access(uri))
    try:
        return way.get("experiments/get", experiment_id="0")
    finally:
        way.close()


def test_one_that_is_proved_is_asked_with_the_password(guarded: str) -> None:
    tracking.check(guarded)
    assert asked(guarded) == {"status": "OK"}


def test_another_password_is_a_line_that_says_where_it_is_set(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    with pytest.raises(AwayError, match=r"answers 401 Unauthorized; check MLFLOW_TRACKING_USERN"):
        asked(guarded)


@pytest.mark.parametrize("other", ["authority", "name", "file"])
def test_one_that_is_not_proved_is_refused_before_a_run_and_by_the_tracker(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    line = "name who signs for it in MLFLOW_TRACKING_SERVER_CERT_PATH"
    if other == "authority":
        file = Authority(tmp_path / "other", "somebody else").file
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
    elif other == "name":
        guarded = guarded.replace("127.0.0.1", "localhost")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/no/such.pem")
        line = "No such file or directory; name files in PEM"
    with pytest.raises(TrackingError, match=line) as caught:
        tracking.check(guarded)
    assert "\n" not in str(caught.value)
    with pytest.raises(AwayError):
        asked(guarded)


def test_an_address_with_a_password_is_refused_without_showing_it() -> None:
    far = f"https://ann:{PASSWORD}@mlflow.example"
    with pytest.raises(TrackingError, match="set MLFLOW_TRACKING_USERNAME and ") as caught:
        tracking.check(far)
    assert PASSWORD not in str(caught.value)
    assert "'https://mlflow.example' holds a password, which would be shown" in str(caught.value)
