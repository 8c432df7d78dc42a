"""Where the gateway listens: by TLS, for Prometheus beside it, and with files enough."""

from __future__ import annotations

import datetime as dt
import ipaddress
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.limits import GatewayLimits
from orchestrator.serving.http.server import Listening, Server, within_files
from tests.ports import free_port
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision


def certify(folder: Path, name: str) -> Listening:
    """Write a self-signed certificate for loopback; give where a server with it listens."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - a certificate has a time of day
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Listening(host="127.0.0.1", port=0, certificate=str(pem), key=str(secret))


def test_the_official_client_asks_and_streams_by_tls(tmp_path: Path) -> None:
    at = certify(tmp_path, "one")
    trusted = ssl.create_default_context(cafile=at.certificate)
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
    at = certify(tmp_path, "one")
    server = Server(Board, GatewayLimits(), at)  # type: ignore[arg-type]
    server.config.load()
    seen = [server._files]
    Path(at.certificate).write_text("half of it")
    os.utime(at.certificate, (1, 1))
    with caplog.at_level(logging.WARNING):
        server._renew()
    assert "the certificate before stays" in caplog.text
    assert [server._files] == seen
    certify(tmp_path, "two")
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
