"""What the environment says about an MLflow server."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.mlflow_tracker import ServerAccess
from orchestrator.messages import TrackedAt
from orchestrator.wiring.tracking import access, place

KNOWN = {
    "MLFLOW_TRACKING_USERNAME": "ada",
    "MLFLOW_TRACKING_PASSWORD": "secret",
    "MLFLOW_TRACKING_TOKEN": "abc",
    "MLFLOW_TRACKING_INSECURE_TLS": "true",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "ca.pem",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": "me.pem",
}
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KNOWN, *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


def test_an_empty_environment_asks_for_nothing() -> None:
    assert access("http://mlflow.example:5000") == ServerAccess()


def test_the_variables_of_mlflow_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KNOWN.items():
        monkeypatch.setenv(name, value)
    assert access("http://mlflow.example") == ServerAccess(
        user="ada",
        password="secret",  # noqa: S106 - a test's
        token="abc",  # noqa: S106 - a test's
        insecure=True,
        certificates="ca.pem",
        identity="me.pem",
    )


def test_a_proxy_is_used_but_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://plain.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert access("https://mlflow.example").proxy == "http://proxy.example:3128"
    assert access("http://mlflow.example").proxy == "http://plain.example:3128"
    assert access("https://inside.example").proxy == ""
    for here in ("127.0.0.1", "127.0.1.1", "localhost", "[::1]", "0.0.0.0"):  # noqa: S104 - as it is asked
        assert access(f"http://{here}:5000").proxy == ""


def test_a_run_is_shown_where_its_config_says_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    at = ["pipeline=noop", "tracking.uri=http://mlflow:5000", "tracking.experiment=ours"]
    assert place(wiring.settings(at), tmp_path) == TrackedAt("http://mlflow:5000", "ours")
    assert place(wiring.settings(["pipeline=noop"]), tmp_path) is None
    assert place(wiring.settings(["pipeline=noop", "tracking=none"]), tmp_path) is None
