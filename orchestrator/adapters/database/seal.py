"""Tokens of replicas, sealed: who can read the database alone can't ask a replica.

A sealed token is Fernet's (AES and HMAC) by a secret that is not in the database. What another
secret has sealed opens to a token that no replica knows, and no reader of the database.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

from orchestrator.core.errors import StoreError

SEALED = "sealed:"


def no_secret() -> bytes:
    """Return the secret of a store that is not meant to hold tokens: there is none.

    Raises:
        StoreError: Always.
    """
    raise StoreError("this store has no secret to seal the tokens of replicas with; give it one")


class Seal:
    """Seals and opens by what `secret` returns, which is asked for at the first use."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._ask = secret

    def close(self, token: str) -> str:
        """Return `token` sealed; no token stays none."""
        return SEALED + self._fernet.encrypt(token.encode()).decode() if token else ""

    def open(self, stored: str) -> tuple[str, bool]:
        """Return the token that is stored so, and whether our secret has sealed it.

        The earlier version has stored tokens as they are.
        """
        if not stored.startswith(SEALED):
            return stored, True
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(stored.removeprefix(SEALED)).decode(), True
        except InvalidToken:
            return hmac.new(self._secret, stored.encode(), hashlib.sha256).hexdigest(), False

    @cached_property
    def _secret(self) -> bytes:
        return self._ask()

    @cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet

        key = hmac.new(self._secret, b"tokens of replicas", hashlib.sha256).digest()
        return Fernet(base64.urlsafe_b64encode(key))
