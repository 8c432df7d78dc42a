"""API keys: who may ask, for which models, and how much a minute.

Only the SHA-256 of a key is known here. Requests and tokens are two token buckets, each holding a
minute's worth. A request reserves what it may come to, its prompt by its bytes and its
`max_tokens`, and gets back what it has not used once it has ended. One that reserves more than a
minute's worth needs a full bucket, and leaves a debt, which is paid before the next. Of a budget
it reserves what it may cost; one that nothing else is in flight with may cost more than is left.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import ceil

from orchestrator.core.endpoints.api_keys import ApiKey, Requirement, opens
from orchestrator.ports import Clock
from orchestrator.serving.gateway.charging import Estimate
from orchestrator.serving.gateway.ledger import Ledger, NoLedger
from orchestrator.serving.gateway.routes import Table
from orchestrator.serving.http.api_errors import ApiError

MINUTE = 60.0
NOTHING = Estimate()
_ROUNDING = 1e-6
_NOBODY = "0" * 64
_UNSAID = (
    "nobody has said whether API keys are needed, so only the gateway's own machine may ask; "
    "`orchestrator keys add NAME` makes one, `orchestrator keys require off` lets everybody in"
)


@dataclass(slots=True)
class _Bucket:
    """What is left of a minute's allowance, at a time by `Clock.monotonic`."""

    remaining: float
    at: float

    def fill(self, now: float, allowance: int) -> None:
        gained = (now - self.at) * allowance / MINUTE
        self.remaining = min(float(allowance), self.remaining + gained)
        self.at = now


@dataclass(frozen=True, slots=True)
class Grant:
    """A request that was let in, and what it has reserved: tokens, and US dollars."""

    key: ApiKey
    reserved: Estimate
    cost: float = 0.0


class RateLimiter:
    """Lets requests in by their key."""

    def __init__(self, clock: Clock, ledger: Ledger | None = None) -> None:
        """Begin with full buckets; the ledger says what a key has spent, and used elsewhere."""
        self._clock = clock
        self._ledger = NoLedger() if ledger is None else ledger
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._parallel: Counter[str] = Counter()
        self._promised: dict[str, float] = {}  # US dollars that answers in flight may cost
        self._keys: Mapping[str, ApiKey] = {}

    def identify(self, table: Table, token: str, host: str = "") -> ApiKey | None:
        """Return whose key `token` is; `None` where a client at `host` needs none.

        Where nobody needs a key, one that is known still has its limits.

        Raises:
            ApiError: No key, an unknown one, or one that is expired.
        """
        if table.keys is not self._keys:
            self._follow(table.keys)
        unsaid = table.required is Requirement.UNKNOWN
        required = Requirement.ON if unsaid and table.keys else table.required
        if not opens(required, host):
            return self._key_of(table, token, required)
        digest = sha256(token.encode()).hexdigest()
        key = table.keys.get(digest) if token else None
        return None if key is None or key.ended(digest, self._clock.now()) else key

    def _key_of(self, table: Table, token: str, required: Requirement) -> ApiKey:
        if required is Requirement.UNKNOWN:
            raise ApiError(401, _UNSAID, code="no_api_key")
        if not token:
            raise ApiError(401, "no API key: send 'Authorization: Bearer KEY'", code="no_api_key")
        digest = sha256(token.encode()).hexdigest()
        key = table.keys.get(digest)
        known = (_NOBODY,) if key is None else key.digests
        if key is None or not any(hmac.compare_digest(mine, digest) for mine in known):
            raise ApiError(401, "the API key is not known", code="invalid_api_key")
        if key.ended(digest, self._clock.now()):
            raise ApiError(401, f"API key {key.name!r} is expired", code="expired_api_key")
        return key

    def admit(
        self, key: ApiKey | None, reserve: Estimate = NOTHING, cost: float = 0.0
    ) -> Grant | None:
        """Take a request of `key` into account, until it is settled; nobody has no limits.

        `cost` is what it may come to, in US dollars.

        Raises:
            ApiError: Not now: one of its limits is reached.
        """
        if key is None:
            return None
        promised = self._promised.get(key.name, 0.0)
        if key.budget is not None:
            _check_budget(key, key.budget, self._ledger.spent(key.name), promised, cost)
        self._charge_elsewhere(key)
        parallel = self._parallel[key.name]
        if key.parallel is not None and not parallel < key.parallel:
            what = (
                f"API key {key.name!r} has {parallel} requests in flight; {key.parallel} at most"
            )
            raise ApiError(429, what, code="rate_limit_exceeded", retry_after=1)
        self._take(key, "tokens", key.tokens, reserve.tokens)
        try:
            self._take(key, "requests", key.requests, 1)
        except ApiError:
            self._give_back(key, reserve.tokens)
            raise
        self._parallel[key.name] += 1
        self._promised[key.name] = promised + cost
        return Grant(key, reserve, cost)

    def settle(self, grant: Grant | None, tokens: int) -> None:
        """End a request, which has used `tokens`."""
        if grant is None:
            return
        name = grant.key.name
        self._parallel[name] -= 1
        self._promised[name] -= grant.cost
        if not self._parallel[name]:
            del self._parallel[name], self._promised[name]
        self._give_back(grant.key, grant.reserved.tokens - tokens)

    def _charge_elsewhere(self, key: ApiKey) -> None:
        """Take what other gateways have let in into account."""
        requests, tokens = self._ledger.elsewhere(key.name)
        for kind, limit, count in (
            ("requests", key.requests, requests),
            ("tokens", key.tokens, tokens),
        ):
            bucket = self._bucket(key, kind, limit) if count else None
            if bucket is not None:
                bucket.remaining -= count

    def _take(self, key: ApiKey, kind: str, allowance: int | None, count: int) -> None:
        bucket = self._bucket(key, kind, allowance)
        if bucket is None or allowance is None:
            return
        missing = min(max(count, 1), allowance) - bucket.remaining
        if allowance <= 0 or missing > _ROUNDING:
            raise _limited(key, kind, allowance, missing)
        bucket.remaining -= count

    def _give_back(self, key: ApiKey, tokens: int) -> None:
        bucket = self._bucket(key, "tokens", key.tokens)
        if bucket is not None and key.tokens is not None:
            bucket.remaining = min(float(key.tokens), bucket.remaining + tokens)

    def _bucket(self, key: ApiKey, kind: str, allowance: int | None) -> _Bucket | None:
        if allowance is None:
            return None
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault((key.name, kind), _Bucket(float(allowance), now))
        bucket.fill(now, allowance)
        return bucket

    def _follow(self, keys: Mapping[str, ApiKey]) -> None:
        """Forget what keys that are gone have used."""
        self._keys = keys
        names = {key.name for key in keys.values()}
        self._buckets = {at: left for at, left in self._buckets.items() if at[0] in names}


def allowed(key: ApiKey | None, model: str) -> bool:
    """Whether `key` may ask for `model`."""
    return key is None or not key.models or model in key.models


def _limited(key: ApiKey, what: str, allowance: int, missing: float) -> ApiError:
    wait = max(1, ceil(missing * MINUTE / allowance)) if allowance > 0 else int(MINUTE)
    message = f"API key {key.name!r} has used its {allowance} {what} a minute; wait {wait} s"
    return ApiError(429, message, code="rate_limit_exceeded", retry_after=wait)


def _check_budget(key: ApiKey, budget: float, spent: float, promised: float, cost: float) -> None:
    if not spent < budget:
        what = f"API key {key.name!r} has spent its budget of {budget:g} US dollars this month"
        raise ApiError(429, what, code="insufficient_quota")
    if promised and spent + promised + cost > budget:
        what = (
            f"what API key {key.name!r} has in flight may cost all that is left of its budget of "
            f"{budget:g} US dollars: ask when that has ended, or for fewer tokens"
        )
        raise ApiError(429, what, code="rate_limit_exceeded", retry_after=1)
