"""What is known of models: their versions, and which of them is the champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.endpoints.life import EndpointLife
from orchestrator.core.trust.model_versions import ModelVersion


class Registry(Protocol):
    """A registry of models. Raises `TrackingError` where it is away."""

    def versions(self, model: str = "") -> Sequence[ModelVersion]:
        """Return the versions of `model`, or of all models, newest first."""
        ...

    def promote(self, version: ModelVersion, note: str) -> None:
        """Make `version` the champion of its model; `note` says who did so, and why."""
        ...

    def follow(self, life: EndpointLife) -> ModelVersion | None:
        """Make the champion what one endpoint gives all traffic to; return it, if that is new."""
        ...

    def close(self) -> None:
        """Leave the registry."""
        ...
