"""API keys, and a ledger of their spending, for tests."""

from __future__ import annotations

from hashlib import sha256

import pytest

from orchestrator.core.endpoints.api_keys import ApiKey
from orchestrator.serving.gateway.ledger import NoLedger
from orchestrator.serving.http.api_errors import ApiError


def key(of: str = "a", **more: object) -> ApiKey:
    return ApiKey(name=f"{of}'s", digest=sha256(of.encode()).hexdigest(), **more)  # type: ignore[arg-type]


class FakeLedger(NoLedger):
    """A ledger of figures that a test sets."""

    def __init__(self, dollars: float = 0.0) -> None:
        self.dollars = dollars
        self.others = (0, 0)

    def spent(self, key: str) -> float:
        return self.dollars

    def elsewhere(self, key: str) -> tuple[int, int]:
        others, self.others = self.others, (0, 0)
        return others


def refused(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str | None]:
    return error.value.status, error.value.code
