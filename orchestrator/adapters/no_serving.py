"""Serving where there is none: a run in one process can't leave an endpoint behind."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import Failed, Message

REASON = "cluster.kind 'local' can't serve endpoints; set cluster=ray"


class NoServing:
    """Refuses every deployment; `plan` refuses such a pipeline before it comes here."""

    def start(self, deployment: Deployment) -> None:
        """Take the request; `poll` refuses it."""

    def poll(self, key: str) -> Sequence[Message]:  # noqa: ARG002 - the port's signature
        """Say why there is no endpoint."""
        return (Failed(Failure(kind=FailureKind.SERVING, evidence=REASON)),)

    def cancel(self, key: str) -> None:
        """Do nothing: nothing was started."""

    def settle(self) -> None:
        """Do nothing, as before."""
