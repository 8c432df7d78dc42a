"""What `/v1/models` of the gateway says of a model."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx2 as httpx
import openai
import pytest

from orchestrator.serving.gateway.routes import EndpointRoute, Far
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision
from tests.serving.scripted import JSON, scripted, sends
from tests.serving.test_failures import HTTP_500, free_url


def lists(*cards: object) -> bytes:
    body = json.dumps({"object": "list", "data": cards}).encode()
    return JSON + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def length_at(url: str) -> object:
    return httpx.get(f"{url}/v1/models/echo").json().get("max_model_len")


def test_it_is_the_shortest_context_of_the_revisions_with_traffic_and_when_they_began() -> None:
    with echoing(echo_engine(max_context=99), echo_engine(max_context=7)) as (one, two):
        both = (revision("r1", one, share=50), revision("r2", two, share=50))
        board = Board(EndpointRoute(name="echo", revisions=both, created=1_600_000_000))
        with (
            gateway_of(board) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
        ):
            card = client.models.retrieve("echo")
            assert (card.created, card.to_dict()["max_model_len"]) == (1_600_000_000, 7)
            assert [one.to_dict() for one in client.models.list()] == [card.to_dict()]
            one_alone = (revision("r1", one), replace(both[1], share=0))
            board.put(EndpointRoute(name="echo", revisions=one_alone))
            assert length_at(url) == 99


@pytest.mark.parametrize(
    ("cards", "length"),
    [
        (({"id": "echo", "max_model_len": 5}, {"id": "other", "max_model_len": 3}), 5),
        (({"id": "/models/echo", "max_model_len": 5},), 5),
        (({"id": "x", "max_model_len": 5}, {"id": "y", "max_model_len": 6}), None),
        (({"id": "echo", "context_length": 8192},), 8192),
        (({"id": "echo", "max_model_len": None},), None),
        (({"id": "echo", "max_model_len": "5"},), None),
        (({"id": "echo", "max_model_len": True},), None),
        (("echo", 1, None), None),
        ((), None),
    ],
)
def test_it_is_what_the_server_says_of_that_model(
    cards: tuple[object, ...], length: int | None
) -> None:
    with scripted(sends(lists(*cards))) as server:
        far = replace(revision("r1", server.url), far=Far(query="a=b"))
        with gateway_of(Board(EndpointRoute(name="echo", revisions=(far,)))) as url:
            for _ in range(2):
                assert length_at(url) == length
    assert server.asked[0].startswith(b"GET /v1/models?a=b HTTP/1.1\r\n")
    assert len(server.asked) == 1, "an answer holds for a while"


@pytest.mark.parametrize("answer", [HTTP_500, b"nonsense", lists()[:-3], lists() + b"more"])
def test_a_model_is_listed_whatever_its_replicas_say(answer: bytes) -> None:
    with scripted(sends(answer)) as server:
        revisions = (revision("r1", server.url, free_url(), "nonsense"), revision("r2", share=0))
        with gateway_of(Board(EndpointRoute(name="echo", revisions=revisions))) as url:
            found = httpx.get(f"{url}/echo/v1/models")
    assert [card["id"] for card in found.json()["data"]] == ["echo"]
