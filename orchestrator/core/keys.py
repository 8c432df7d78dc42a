"""API keys of the gateway, as they are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key to the gateway: only its SHA-256 is kept.

    Attributes:
        name: Whose it is.
        digest: SHA-256 of the key, in hexadecimal.
        models: Endpoints that it opens; all where empty.
        requests: Requests a minute, at most; None is no limit.
        tokens: Tokens a minute, at most, of prompts and answers together.
        expires: When it ends (seconds, epoch).
    """

    name: str
    digest: str
    models: tuple[str, ...] = ()
    requests: int | None = None
    tokens: int | None = None
    expires: float | None = None
