"""What is kept of the gateway's API keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.endpoints.api_keys import ApiKey, KeyRules


class KeyStore(Protocol):
    """Memory of all API keys. Raises `StoreError` for what the database refuses."""

    def add_key(self, key: ApiKey) -> None:
        """Keep an API key; the first one has keys asked for from then on.

        Raises:
            StoreError: There is one of its name.
        """
        ...

    def change_key(self, key: ApiKey) -> None:
        """Keep `key` in place of the one of its name. Raises `NotFoundError`."""
        ...

    def drop_key(self, name: str) -> None:
        """Forget an API key; whether keys are asked for stays as it is. Raises `NotFoundError`."""
        ...

    def api_keys(self) -> Sequence[ApiKey]:
        """Return all API keys, by name."""
        ...

    def require_keys(self, *, on: bool) -> None:
        """Have keys asked for, or not."""
        ...

    def key_rules(self) -> KeyRules:
        """Return whether keys are asked for, and a stamp that changes whenever any key does."""
        ...
