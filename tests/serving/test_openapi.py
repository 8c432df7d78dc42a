"""What the OpenAPI document says is so: schemathesis asks each operation, well and badly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx2 as httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from orchestrator.serving.gateway.routes import EndpointRoute, Far
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision

# A request may fit the schema and not the model: its context, or a 1.0 where a 1 is meant.
NOT_ALL_THAT_FITS = "positive_data_acceptance"


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    with echoing(echo_engine()) as urls:
        yield Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))


@pytest.fixture(scope="module")
def url(board: Board) -> Iterator[str]:
    with gateway_of(board) as url:
        yield url


@pytest.mark.parametrize(
    ("served", "number"), [((False,), 11), ((True,), 21), ((False, True), 21)], ids=str
)
def test_the_document_holds_for_each_operation(
    url: str, board: Board, served: tuple[bool, ...], number: int
) -> None:
    (found,) = board.table().endpoints["echo"].revisions
    each = tuple(replace(found, name=f"r{place}", server=one) for place, one in enumerate(served))
    board.put(EndpointRoute(name="echo", revisions=each))
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == number  # all but the document itself
    load_all_checks()
    excluded = [CHECKS.get_one(NOT_ALL_THAT_FITS)]
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=5,
            database=None,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=url, excluded_checks=excluded)

        ask()


@pytest.mark.parametrize("kind", ["own", "server", "outside", "both"])
def test_what_a_request_may_have_is_what_its_engine_takes(kind: str) -> None:
    own = revision("r1", "http://a")
    others = {"server": replace(own, server=True), "outside": replace(own, far=Far())}
    found = {"own": (own,), "both": (own, others["server"])}
    board = Board(EndpointRoute(name="echo", revisions=found.get(kind) or (others[kind],)))
    with gateway_of(board) as url:
        document = httpx.get(f"{url}/openapi.json").json()
    request = {"model": "echo", "prompt": "a", "guided_regex": "a+"}
    for path in ("/v1/completions", "/{endpoint}/v1/completions"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        schema = {**body["schema"], "components": document["components"]}
        judge = jsonschema.Draft202012Validator(schema)
        assert judge.is_valid(request) is (kind != "own")
        assert not judge.is_valid({**request, "model": 1})
    assert ("/v1/embeddings" in document["paths"]) is (kind != "own")
