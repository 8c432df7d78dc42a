"""What every model that is no language model must do, and a replica around it."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from orchestrator.serving.replica.app import replica
from tests.contracts.shipped_engines import (
    PREDICTORS,
    PREDICTS,
    ShippedPredictor,
    engines_of_jobs,
)
from tests.serving.http_server import FixedClock, serving


@pytest.fixture(params=PREDICTORS, ids=lambda shipped: shipped.kind.__name__)
def shipped(request: pytest.FixtureRequest) -> ShippedPredictor:
    return request.param


@pytest.fixture
def predictor(shipped: ShippedPredictor, tmp_path: Path) -> Any:
    shipped.save(tmp_path, 0)
    return shipped.make(tmp_path)


def test_every_predictor_of_jobs_is_held_to_this() -> None:
    assert {shipped.dotted for shipped in PREDICTORS} >= engines_of_jobs(PREDICTS)


def test_it_answers_json_with_json_and_refuses_what_it_does_not_take(
    shipped: ShippedPredictor, predictor: Any
) -> None:
    answer = asyncio.run(predictor.predict(shipped.good))
    assert json.loads(json.dumps(answer)) == answer
    for body in shipped.bad:
        with pytest.raises(ValueError, match=r"\w"):
            asyncio.run(predictor.predict(body))
    assert asyncio.run(predictor.predict(shipped.good)) == answer


def test_it_is_well_says_so_from_any_thread_and_is_closed_twice(predictor: Any) -> None:
    with ThreadPoolExecutor(1) as other:
        assert other.submit(predictor.health).result() == ""
    predictor.close()
    predictor.close()


def test_a_replica_predicts_and_generates_nothing(
    shipped: ShippedPredictor, predictor: Any
) -> None:
    with (
        serving(replica(predictor, "m", FixedClock())) as url,
        httpx.Client(base_url=url) as client,
    ):
        assert client.get("/ready").json() == {"status": "ok"}
        answer = asyncio.run(predictor.predict(shipped.good))
        assert client.post("/v1/predict", json=shipped.good).json() == answer
        for body in shipped.bad:
            refused = client.post("/v1/predict", content=json.dumps(body))
            assert refused.status_code == 400
            assert refused.json()["error"]["message"]
        torn = client.post("/v1/predict", content=b"{")
        assert torn.json()["error"]["code"] == "invalid_json"
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            refused = client.post(path, json={"model": "m", "prompt": "a"})
            assert "it answers at /v1/predict" in refused.json()["error"]["message"]
        assert 'orchestrator_engine_healthy{model="m"} 1.0' in client.get("/metrics").text
