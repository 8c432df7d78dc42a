"""Servers that somebody else runs: their certificates, headers and queries."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2 as httpx
import pytest

from orchestrator.adapters import openai_server
from orchestrator.core.errors import ServingError
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.serving.gateway.routes import EndpointRoute, Far
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.certificates import Authority
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision
from tests.serving.scripted import WHOLE, scripted, sends
from tests.serving.test_listening import certified

PROMPT = {"model": "echo", "prompt": "hi"}
LISTING = b'HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{"data":[{"id":"one"}]'
MOVED = b"HTTP/1.1 302 Found\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n"
SOON = GatewayLimits(gone_seconds=0.5, absent_seconds=0.1)


def test_a_server_with_a_certificate_of_its_own_is_asked_by_the_authority_that_is_named(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "far")
    at, ca = certified(authority), tmp_path / "ca.pem"
    with echoing(echo_engine()) as urls:
        inner = Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))
        with gateway_of(inner, at=at) as far:
            own = Far(ca_file=str(ca))
            server = Outside(address=f"{far}/v1", model="echo", ca_file=str(ca))
            with pytest.raises(ServingError, match=r"the CA file .* can't be read"):
                openai_server.models(server)
            assert "can't be read" in refused(far, own)
            shutil.copy(authority.file, ca)
            assert openai_server.models(server) == ["echo"]
            assert refused(far, own) == ""
            assert "certificate" in refused(far, Far()).lower()
            with pytest.raises(ServingError, match="certificate"):
                openai_server.models(Outside(address=far, model="echo"))


def refused(address: str, far: Far) -> str:
    """Return why a gateway gets no answer of a server, if it gets none."""
    with gateway_of(Board(route_to(address, far)), SOON) as url:
        answer = httpx.post(f"{url}/v1/completions", json=PROMPT)
    return "" if answer.status_code == 200 else str(answer.json()["error"]["message"])


def route_to(address: str, far: Far) -> EndpointRoute:
    return EndpointRoute(name="echo", revisions=(revision("r1", address, far=far),))  # type: ignore[arg-type]


def test_headers_and_query_of_a_server_go_with_each_request_and_win_over_the_clients() -> None:
    with scripted(sends(WHOLE)) as server:
        outside = Outside(
            address=f"{server.url}/openai/v1?api-version=1",
            model="echo",
            key_header="Api-Key",
            headers=("User-Agent: ours", "X-Team:  a: b"),
        )
        far = Far(headers=outside.sent("sk-far"), query=outside.query)
        with gateway_of(Board(route_to(outside.base, far))) as url:
            for query in ("", "?api-version=2&beta=yes"):
                httpx.post(f"{url}/v1/completions{query}", json=PROMPT, headers={"x-team": "mine"})
        openai_server.models(outside, "sk-far")
    first, second, listed = (request.split(b"\r\n\r\n")[0] for request in server.asked)
    assert first.startswith(b"POST /openai/v1/completions?api-version=1 HTTP/1.1\r\n")
    assert second.startswith(b"POST /openai/v1/completions?beta=yes&api-version=1 HTTP/1.1\r\n")
    assert listed.startswith(b"GET /openai/v1/models?api-version=1 HTTP/1.1\r\n")
    for request in (first, second, listed):
        lines = [line.lower() for line in request.split(b"\r\n")]
        assert {b"api-key: sk-far", b"user-agent: ours", b"x-team: a: b"} <= set(lines)
        assert b"authorization" not in request.lower()


def test_a_key_follows_no_redirect() -> None:
    with scripted(sends(LISTING)) as other:
        with scripted(sends(MOVED % other.url.encode())) as server:
            assert openai_server.models(Outside(address=server.url, model="m"), "sk-far") is None
        assert other.asked == []
