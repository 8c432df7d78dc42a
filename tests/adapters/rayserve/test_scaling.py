"""How many replicas requests and tokens in flight ask for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.adapters.rayserve.operations import application
from orchestrator.adapters.rayserve.scaling import FollowLoad
from orchestrator.adapters.rayserve.serve_requests import DeploymentPorts, ServeRequest
from tests.build import deployment


def test_requests_that_pass_the_replicas_by_count_as_their_engines_tell() -> None:
    load: Any = SimpleNamespace(
        config=SimpleNamespace(target_ongoing_requests=4.0),
        total_num_requests=0,
        aggregated_metrics={"running": {"a": 6.0, "b": 6.0}, "held": {"a": 1e9}},
    )
    assert FollowLoad()(load) == (3.0, {})


def asked(requests: float, held: dict[str, float] | None) -> float:
    load: Any = SimpleNamespace(
        config=SimpleNamespace(target_ongoing_requests=4.0),
        total_num_requests=requests,
        aggregated_metrics=None if held is None else {"held": held},
    )
    wanted, remembered = FollowLoad(1000.0)(load)
    assert remembered == {}
    return wanted


@pytest.mark.parametrize(
    ("requests", "held", "wanted"),
    [
        (0, None, 0),
        (8, None, 2),
        (8, {"a": 500.0, "b": 100.0}, 2),
        (2, {"a": 2500.0, "b": 500.0}, 3),
    ],
)
def test_what_asks_for_more_replicas_counts(
    requests: float, held: dict[str, float] | None, wanted: float
) -> None:
    assert asked(requests, held) == wanted


def test_serve_takes_the_policy_where_tokens_count() -> None:
    made, access = deployment("chat"), DeploymentPorts(print, print, dict, str)  # type: ignore[arg-type]
    for target, known in ((None, "default"), (500.0, "scaling:FollowLoad")):
        endpoint = replace(made.endpoint, max_replicas=3, target_tokens=target)
        request = ServeRequest(replace(made, endpoint=endpoint), "chat.r1", replicas=2)
        one = application(request, access, "")
        config = one._bound_deployment._deployment_config.autoscaling_config
        assert known in str(config.policy.policy_function)
        assert config.policy.policy_kwargs == ({} if target is None else {"target_tokens": 500.0})
