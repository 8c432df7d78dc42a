"""What the OpenAPI document says is so: schemathesis asks each operation, well and badly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from orchestrator.serving.routes import EndpointRoute
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision

# A request may fit the schema and not the model: its context, or a 1.0 where a 1 is meant.
NOT_ALL_THAT_FITS = "positive_data_acceptance"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with echoing(echo_engine()) as urls:
        route = EndpointRoute(name="echo", revisions=(revision("r1", *urls),))
        with gateway_of(Board(route)) as url:
            yield url


def test_the_document_holds_for_each_operation(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 11  # all but the document itself
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
