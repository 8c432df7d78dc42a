"""Small parts of the gateway: depth of JSON, and a model that is no text."""

from __future__ import annotations

import time

import httpx2 as httpx
import pytest

from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.depth import check_depth
from orchestrator.serving.replica.app import replica
from tests.serving.http_server import Board, FixedClock, gateway_of, revision, serving


@pytest.mark.parametrize(
    "body", [b"[" * 3 + b"]" * 3, b'{"a": "[[[[\\"[[["}', b"[[],[],[],[[]]]", b'"' + b"[" * 99]
)
def test_what_is_not_deep_passes(body: bytes) -> None:
    check_depth(body, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 4,
        b'{"a":' * 4,
        b'["]", [[[]]]]',
        b"[]," * 20_001,
        b'[[[["' + b'"",' * 90_000,
        b"[" + b"1," * 5_000_000,
    ],
    ids=lambda body: body[:9].decode(),
)
def test_what_is_deep_or_has_too_many_parts_is_refused_quickly(body: bytes) -> None:
    began = time.thread_time()
    with pytest.raises(ApiError) as error:
        check_depth(body, 3)
    assert error.value.status == 400
    assert time.thread_time() - began < 0.5


class Doubling:
    """A model that is no language model."""

    version = "d1"

    async def predict(self, body: object) -> object:
        assert isinstance(body, dict)
        if body["x"] < 0:
            raise RuntimeError("the device is gone")
        return {"y": 2 * body["x"]}

    def close(self) -> None:
        pass


def test_the_gateway_asks_a_model_that_is_no_language_model() -> None:
    with serving(replica(Doubling(), "double", FixedClock())) as there:
        route = EndpointRoute(name="double", revisions=(revision("r1", there),))
        with gateway_of(Board(route)) as url, httpx.Client(base_url=url) as client:
            assert client.post("/double/v1/predict", json={"x": 4}).json() == {"y": 8}
            named = {"x": 4, "model": "double"}
            assert client.post("/v1/predict", json=named).json() == {"y": 8}
            broken = client.post("/double/v1/predict", json={"x": -1})
            assert (broken.status_code, broken.json()["error"]["code"]) == (500, "engine_failed")


def test_a_replica_answers_nobody_without_its_token() -> None:
    secret = "of the gateway"  # noqa: S105 - of a test
    with serving(replica(Doubling(), "double", FixedClock(), token=secret)) as url:
        for token in ("", "Bearer x", f"Basic {secret}"):
            headers = {"Authorization": token}
            answer = httpx.post(f"{url}/v1/predict", json={"x": 1}, headers=headers)
            assert answer.status_code == 401
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.post(f"{url}/v1/predict", json={"x": 1}, headers=headers).json() == {"y": 2}
        assert httpx.get(f"{url}/health").status_code == 200
