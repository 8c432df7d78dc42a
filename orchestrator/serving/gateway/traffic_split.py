"""Which revision a request goes to."""

from __future__ import annotations

from hashlib import blake2b
from math import log
from random import Random

from orchestrator.serving.gateway.routes import EndpointRoute, RevisionRoute

_RANGE = 1 << 64


def choose(route: EndpointRoute, client: str, rng: Random) -> RevisionRoute | None:
    """Return a revision by the shares of traffic, `None` where none has any.

    A `client` stays with its revision while shares stand, and when they change as few clients
    move as must: weighted rendezvous hashing. Without a client, chance decides.
    """
    live = [revision for revision in route.revisions if revision.share > 0]
    if len(live) < 2:  # noqa: PLR2004 - nothing to choose
        return live[0] if live else None
    if client:
        return max(live, key=lambda revision: _score(client, revision))
    point = rng.random() * sum(revision.share for revision in live)
    for revision in live:
        point -= revision.share
        if point < 0:
            return revision
    return live[-1]


def _score(client: str, revision: RevisionRoute) -> float:
    digest = blake2b(f"{client}\0{revision.name}".encode(), digest_size=8).digest()
    chance = (int.from_bytes(digest, "big") + 1) / (_RANGE + 1)
    return -revision.share / log(chance)
