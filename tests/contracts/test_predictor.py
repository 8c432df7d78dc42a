"""What every model that is no language model must do, and a replica around it."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import torch

from orchestrator.serving.replica.app import replica
from tests.contracts.edges import Edges
from tests.jobs.engines.tiny_llama import HARDWARE
from tests.serving.http_server import FixedClock, serving

GOOD = {"pixels": [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]}
BAD: list[Any] = [{}, [], None, "pixels"]


@pytest.fixture
def predictor(tmp_path: Path) -> Edges:
    torch.save(torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]]), tmp_path / "kernel.pt")
    return Edges(tmp_path, HARDWARE)


def test_it_answers_json_with_json_and_refuses_what_it_does_not_take(predictor: Edges) -> None:
    told = asyncio.run(predictor.predict(GOOD))
    assert json.loads(json.dumps(told)) == told
    for body in BAD:
        with pytest.raises(ValueError, match="pixels is missing"):
            asyncio.run(predictor.predict(body))
    assert asyncio.run(predictor.predict(GOOD)) == told


def test_it_is_well_says_so_from_any_thread_and_is_closed_twice(predictor: Edges) -> None:
    with ThreadPoolExecutor(1) as other:
        assert other.submit(predictor.health).result() == ""
    predictor.close()
    predictor.close()


def test_a_replica_predicts_and_generates_nothing(predictor: Edges) -> None:
    with (
        serving(replica(predictor, "m", FixedClock())) as url,
        httpx.Client(base_url=url) as client,
    ):
        assert client.get("/ready").json() == {"status": "ok"}
        assert client.post("/v1/predict", json=GOOD).json()["edges"][1][1] == -4.0
        for body in BAD:
            refused = client.post("/v1/predict", content=json.dumps(body))
            assert refused.status_code == 400
            assert refused.json()["error"]["message"] == "pixels is missing"
        torn = client.post("/v1/predict", content=b"{")
        assert torn.json()["error"]["code"] == "invalid_json"
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            refused = client.post(path, json={"model": "m", "prompt": "a"})
            assert "it answers at /v1/predict" in refused.json()["error"]["message"]
        assert 'orchestrator_engine_healthy{model="m"} 1.0' in client.get("/metrics").text
