"""How many replicas the load asks for, where tokens count beside requests."""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

# What a replica tells: the tokens of all its requests, prompts and answers so far; and, where they
# pass it by, how many requests there are.
HELD = "held"
RUNNING = "running"


class FollowLoad:
    """A policy of Serve's autoscaling, which itself keeps bounds and waits before it moves.

    Args:
        target_tokens: Tokens in flight that a replica is meant to hold; they don't count where
            `None`.
    """

    def __init__(self, target_tokens: float | None = None) -> None:
        self._target = target_tokens

    def __call__(self, load: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return the larger of what requests and tokens ask for; nothing is remembered."""
        config: Any = load.config
        metrics = load.aggregated_metrics or {}
        requests = max(float(load.total_num_requests), sum(metrics.get(RUNNING, {}).values()))
        held = sum(metrics.get(HELD, {}).values())
        by_tokens = 0.0 if self._target is None else held / self._target
        return max(requests / config.target_ongoing_requests, by_tokens), {}
