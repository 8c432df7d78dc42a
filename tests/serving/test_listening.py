"""Where the gateway listens: by TLS, for Prometheus beside it, and with files enough."""

from __future__ import annotations

import logging
import os
import resource
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.request_limits import GatewayLimits
from orchestrator.serving.http.server import Listening, Server, within_files
from tests.certificates import LOOPBACK, Authority
from tests.ports import free_port
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision


def certified(authority: Authority) -> Listening:
    """Return where a server listens whose certificate is new."""
    pem, key = authority.certify(LOOPBACK)
    return Listening(host=LOOPBACK, port=0, certificate=str(pem), key=str(key))


def test_the_official_client_asks_and_streams_by_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    at, trusted = certified(authority), ssl.create_default_context(cafile=authority.file)
    with (
        echoing(echo_engine()) as urls,
        gateway_of(
            Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),))), at=at
        ) as url,
        openai.OpenAI(
            base_url=f"{url}/v1",
            api_key="none",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(verify=trusted),
        ) as client,
    ):
        assert client.completions.create(model="echo", prompt="hi").choices[0].text == "hi"
        pieces = client.completions.create(model="echo", prompt="hi", stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == "hi"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/health")
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https:", "http:") + "/health")


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    at = certified(authority)
    server = Server(Board, GatewayLimits(), at)  # type: ignore[arg-type]
    server.config.load()
    seen = [server._files]
    Path(at.certificate).write_text("half of it")
    os.utime(at.certificate, (1, 1))
    with caplog.at_level(logging.WARNING):
        server._renew()
    assert "the certificate before stays" in caplog.text
    assert [server._files] == seen
    certified(authority)
    os.utime(at.certificate, (2, 2))
    server._renew()
    assert [server._files] != seen


def test_prometheus_has_a_listener_of_its_own() -> None:
    port = free_port()
    at = Listening(host="127.0.0.1", port=0, metrics_at=("127.0.0.1", port))
    with gateway_of(Board(), at=at) as url:
        told = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert told.status_code == 200
        assert "orchestrator_routes_age_seconds" in told.text
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 404
        assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize(
    ("files", "connections"),
    [(1024, 384), (100, 1), (65_536, 4096), (resource.RLIM_INFINITY, 4096)],
)
def test_there_are_no_more_connections_than_files_for_them(files: int, connections: int) -> None:
    assert within_files(GatewayLimits(), files).connections == connections


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    code = (
        "import resource as r; from orchestrator.serving.http.server import raise_files;"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, 512));"
        "print(raise_files(), r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "512 (512, 512)"
