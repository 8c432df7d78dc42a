"""How many replicas the load asks for, where tokens count beside requests."""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

HELD = "held"  # what a replica tells: the tokens of all its requests, prompts and answers so far


class FollowLoad:
    """A policy of Serve's autoscaling, which itself keeps bounds and waits before it moves.

    Args:
        target_tokens: Tokens in flight that a replica is meant to hold.
    """

    def __init__(self, target_tokens: float) -> None:
        self._target = target_tokens

    def __call__(self, load: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return the larger of what requests and tokens ask for; nothing is remembered."""
        config: Any = load.config
        requests = float(load.total_num_requests) / config.target_ongoing_requests
        held = (load.aggregated_metrics or {}).get(HELD, {})
        return max(requests, sum(held.values()) / self._target), {}
