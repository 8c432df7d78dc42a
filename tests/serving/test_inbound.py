"""What the gateway reads of a request, as whatever server gets it may read it too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.serving.gateway.inbound import InboundRequest, inbound
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.serving.http_server import revision

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def read(body: object, path: str = COMPLETIONS, endpoint: str = "") -> InboundRequest:
    scope: dict[str, Any] = {"method": "POST", "headers": [], "path": path}
    return inbound(scope, path, endpoint, json.dumps(body).encode(), GatewayLimits())


@pytest.mark.parametrize("n", [16, 16.0, "16", "16.0", " 16 ", "1.6e1"], ids=repr)
def test_choices_count_however_their_number_is_written(n: object) -> None:
    assert read({"model": "m", "prompt": "a", "n": n}).choices == 16
    assert read({"model": "m", "prompt": ["a", "b"], "n": n}).choices == 32
    with pytest.raises(ApiError, match="144 answers at once; 128 at most"):
        read({"model": "m", "prompt": ["a"] * 9, "n": n})


@pytest.mark.parametrize(
    "n", [None, 0, -3, 1.5, "many", "nan", "inf", True, [4], "9" * 100], ids=repr
)
def test_what_is_no_number_of_choices_counts_as_one(n: object) -> None:
    assert read({"model": "m", "prompt": "a", "n": n}).choices == 1


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({}, None),
        ({"max_tokens": 9}, 9),
        ({"max_tokens": 9.0}, 9),
        ({"max_tokens": "9"}, 9),
        ({"max_tokens": 0}, 0),
        ({"max_completion_tokens": 1, "max_tokens": 900}, 900),
        ({"max_completion_tokens": 900, "max_tokens": 1}, 900),
        ({"max_tokens": "all"}, None),
    ],
)
def test_so_many_tokens_are_reserved_as_any_server_may_make(
    limits: dict[str, object], most: int | None
) -> None:
    assert read({"model": "m", "prompt": "a", **limits}).max_tokens == most


@pytest.mark.parametrize("wanted", [1 << 21, float(1 << 21), str(1 << 21)], ids=repr)
def test_a_limit_over_ours_is_refused_however_it_is_written(wanted: object) -> None:
    with pytest.raises(ApiError, match="max_tokens is over 1048576"):
        read({"model": "m", "prompt": "a", "max_tokens": wanted})


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/v1/embeddings"])
def test_a_path_that_names_the_endpoint_names_the_model_too(path: str) -> None:
    request = read({"input": "a"}, path, "chat")
    assert request.endpoint == "chat"
    _, body = request.outbound(revision("r1", "http://a"))
    assert json.loads(body) == {"model": "chat", "input": "a"}
    _, body = request.outbound(revision("r1", "http://a", model="llama"))
    assert json.loads(body)["model"] == "llama"


def test_what_we_do_not_know_goes_on_as_it_is_though_it_names_no_model() -> None:
    _, body = read({"x": 1}, "/v1/other", "chat").outbound(revision("r1", "http://a"))
    assert json.loads(body) == {"x": 1}
