"""What load balancers and browsers ask of the gateway beside its own routes."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import pytest

from orchestrator.serving.edge import STALE_SECONDS
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
