"""What load balancers and browsers ask of the gateway beside its own routes."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import pytest

from orchestrator.serving.gateway.edge import STALE_SECONDS
from tests.serving.http_server import Board, gateway_of


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def url(board: Board) -> Iterator[str]:
    with gateway_of(board) as url:
        yield url


def test_it_is_ready_while_its_table_is_new_and_healthy_all_the_same(
    url: str, board: Board
) -> None:
    assert httpx.get(f"{url}/ready").json() == {"status": "ok"}
    board.seconds_old = STALE_SECONDS + 1
    late = httpx.get(f"{url}/ready")
    assert (late.status_code, late.json()["error"]["code"]) == (503, "not_ready")
    assert "the routes are 11 s old" in late.json()["error"]["message"]
    assert httpx.get(f"{url}/health").status_code == 200
    assert "orchestrator_routes_age_seconds 11.0" in httpx.get(f"{url}/metrics").text


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/openapi.json"])
def test_head_is_answered_as_get_without_the_body(url: str, path: str) -> None:
    whole, head = httpx.get(f"{url}{path}"), httpx.head(f"{url}{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


def test_what_is_not_there_for_a_method_is_refused(url: str) -> None:
    assert httpx.post(f"{url}/ready").status_code == 405
    assert httpx.head(f"{url}/v1/completions").status_code == 405


PAGE = "https://app.example.com"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


def test_a_browser_of_an_allowed_origin_may_ask_and_read_what_it_needs(board: Board) -> None:
    with gateway_of(board, origins=[PAGE]) as url:
        asked = httpx.options(f"{url}/v1/chat/completions", headers={"origin": PAGE, **PREFLIGHT})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == PAGE
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "DELETE" in asked.headers["access-control-allow-methods"]
        assert "x-stainless-lang" in asked.headers["access-control-allow-headers"]
        within = {**PREFLIGHT, "access-control-request-private-network": "true"}
        asked = httpx.options(f"{url}/v1/models", headers={"origin": PAGE, **within})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-private-network"] == "true"
        models = httpx.get(f"{url}/v1/models", headers={"origin": PAGE})
        assert models.headers["access-control-allow-origin"] == PAGE
        exposed = models.headers["access-control-expose-headers"]
        assert {"x-request-id", "x-revision"} <= set(exposed.split(", "))
        refused = httpx.post(f"{url}/v1/completions", headers={"origin": PAGE}, json={})
        assert refused.status_code == 400
        assert refused.headers["access-control-allow-origin"] == PAGE, "errors are read too"
        other = httpx.options(
            f"{url}/v1/chat/completions", headers={"origin": "https://evil.example", **PREFLIGHT}
        )
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers


def test_without_allowed_origins_no_browser_is_told_anything(url: str) -> None:
    asked = httpx.options(f"{url}/v1/chat/completions", headers={"origin": PAGE, **PREFLIGHT})
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control")]
