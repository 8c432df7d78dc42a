"""What can go wrong between the tracker and MLflow: it is away, or it refuses."""

from __future__ import annotations

from orchestrator.core.errors import TrackingError


class AwayError(TrackingError):
    """MLflow does not answer, or not now: the same request may succeed later."""


class RefusedError(TrackingError):
    """MLflow answered that it will not take this; asking again does not help."""
