"""API keys: who may ask, for which models, and how much a minute.

Only the SHA-256 of a key is known here. Requests and tokens are two token buckets, each holding a
minute's worth. A request is charged its real tokens after its answer, so a bucket may go into
debt; it takes no further request until that is paid. So `max_tokens` costs nothing that isn't
used, and a burst can overdraw by what is in flight.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from math import ceil

from orchestrator.core.keys import ApiKey, Requirement, opens
from orchestrator.ports import Clock
from orchestrator.serving.errors import ApiError
from orchestrator.serving.routes import Table

MINUTE = 60.0
_NOBODY = "0" * 64
_UNSAID = (
    "nobody has said whether API keys are needed, so only the gateway's own machine may ask; "
    "`orchestrator keys add NAME` makes one, `orchestrator keys require off` lets everybody in"
)


@dataclass(slots=True)
class _Bucket:
    """What is left of a minute's allowance, at a time."""

    left: float
    at: float

    def fill(self, now: float, allowance: int) -> None:
        gained = max(0.0, now - self.at) * allowance / MINUTE
        self.left = min(float(allowance), self.left + gained)
        self.at = now


class RateLimiter:
    """Lets requests in by their key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def identify(self, table: Table, token: str, host: str = "") -> ApiKey | None:
        """Return whose key `token` is; `None` where a client at `host` needs none.

        Where nobody needs a key, one that is known still has its limits.

        Raises:
            ApiError: No key, an unknown one, or one that is expired.
        """
        unsaid = table.required is Requirement.UNKNOWN
        required = Requirement.ON if unsaid and table.keys else table.required
        if not opens(required, host):
            return self._known(table, token, required)
        key = table.keys.get(sha256(token.encode()).hexdigest()) if token else None
        return None if key is None or self._expired(key) else key

    def _known(self, table: Table, token: str, required: Requirement) -> ApiKey:
        if required is Requirement.UNKNOWN:
            raise ApiError(401, _UNSAID, code="no_api_key")
        if not token:
            raise ApiError(401, "no API key: send 'Authorization: Bearer KEY'", code="no_api_key")
        digest = sha256(token.encode()).hexdigest()
        key = table.keys.get(digest)
        same = hmac.compare_digest(_NOBODY if key is None else key.digest, digest)
        if key is None or not same:
            raise ApiError(401, "the API key is not known", code="invalid_api_key")
        if self._expired(key):
            raise ApiError(401, f"API key {key.name!r} is expired", code="expired_api_key")
        return key

    def _expired(self, key: ApiKey) -> bool:
        return key.expires is not None and not key.expires > self._clock.now()

    def admit(self, key: ApiKey | None, model: str) -> None:
        """Take a request of `key` for `model` into account.

        Raises:
            ApiError: It may not ask for this model, or not now.
        """
        if key is None:
            return
        if not allowed(key, model):
            what = f"API key {key.name!r} may not ask for model {model!r}"
            raise ApiError(403, what, param="model", code="model_not_allowed")
        tokens = self._bucket(key, "tokens", key.tokens)
        requests = self._bucket(key, "requests", key.requests)
        if tokens is not None and key.tokens is not None and tokens.left <= 0:
            raise _limited(key, "tokens", key.tokens, 1 - tokens.left)
        if requests is not None and key.requests is not None:
            if requests.left < 1:
                raise _limited(key, "requests", key.requests, 1 - requests.left)
            requests.left -= 1

    def charge(self, key: ApiKey | None, tokens: int) -> None:
        """Take what an answer used into account."""
        bucket = None if key is None else self._bucket(key, "tokens", key.tokens)
        if bucket is not None:
            bucket.left -= tokens

    def _bucket(self, key: ApiKey, kind: str, allowance: int | None) -> _Bucket | None:
        if allowance is None:
            return None
        now = self._clock.now()
        bucket = self._buckets.setdefault((key.digest, kind), _Bucket(float(allowance), now))
        bucket.fill(now, allowance)
        return bucket


def allowed(key: ApiKey | None, model: str) -> bool:
    """Whether `key` may ask for `model`."""
    return key is None or not key.models or model in key.models


def _limited(key: ApiKey, what: str, allowance: int, missing: float) -> ApiError:
    wait = ceil(missing * MINUTE / allowance) if allowance > 0 else int(MINUTE)
    said = f"API key {key.name!r} has used its {allowance} {what} a minute; wait {wait} s"
    return ApiError(429, said, code="rate_limit_exceeded", retry_after=wait)
