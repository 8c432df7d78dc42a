"""API keys of the gateway, as they are kept, and whether they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.own_host import is_loopback


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
        parallel: Requests at once, at most.
        budget: US dollars a calendar month (UTC), at most.
        weight: Its part of the slots against that of other keys, where requests wait.
        priority: The lower goes first, always, where requests wait.
        owner: Who answers for it, in words.
        previous: SHA-256 of its secret before the last rotation.
        previous_until: Until when that one opens too (seconds, epoch).
    """

    name: str
    digest: str
    models: tuple[str, ...] = ()
    requests: int | None = None
    tokens: int | None = None
    expires: float | None = None
    parallel: int | None = None
    budget: float | None = None
    weight: float = 1.0
    priority: int = 0
    owner: str = ""
    previous: str = ""
    previous_until: float = 0.0

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the secrets that may open it."""
        return (self.digest, self.previous) if self.previous else (self.digest,)

    def rotated(self, digest: str, until: float) -> ApiKey:
        """Return it with another secret; the present one opens `until` then."""
        return replace(self, digest=digest, previous=self.digest, previous_until=until)

    def ended(self, digest: str, now: float) -> bool:
        """Whether the secret with `digest` opens nothing any more; what is no number ends it."""
        if self.expires is not None and not self.expires > now:
            return True
        return digest != self.digest and not self.previous_until > now


class Requirement(StrEnum):
    """Whether clients must show a key. UNKNOWN: nobody has said so yet, and there is no key."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What holds for all keys. `stamp` is another one after each change of any key."""

    required: Requirement = Requirement.UNKNOWN
    stamp: str = ""


def opens(required: Requirement, host: str) -> bool:
    """Whether a client at `host`, or all that reach a gateway listening there, need no key.

    Where nobody has said anything, only this machine itself needs none.
    """
    if required is Requirement.UNKNOWN:
        return is_loopback(host)
    return required is Requirement.OFF


def follows(before: Requirement, now: Requirement) -> Requirement:
    """Return what holds for a gateway that has known `before` and now reads `now`.

    A database that was emptied or replaced says nothing: keys that were asked for still are.
    """
    lost = before is Requirement.ON and now is Requirement.UNKNOWN
    return before if lost else now
