"""What is served: endpoints as their events tell and as they are seen, and how traffic moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, Unpack, cast

from orchestrator import wiring
from orchestrator.core.endpoints.life import (
    WHOLE,
    EndpointLife,
    OverflowSet,
    Revision,
    RevisionRetired,
    RevisionState,
    ShadowSet,
    SharesMoved,
    TrafficEvent,
    follow,
)
from orchestrator.core.endpoints.promotion import NOTHING, TrafficFigures
from orchestrator.core.errors import (
    ConfigError,
    NotFoundError,
    Problem,
    ServingError,
    TransitionError,
)
from orchestrator.endpoints import revisions
from orchestrator.service.change import Change

RESTS = "resting"  # until somebody asks
DOWN = "down"
BROKEN = "broken"  # it is deployed anew, again and again
_EVENTS: Mapping[str, Callable[[int | None, str], TrafficEvent]] = {
    "shadow": ShadowSet,
    "overflow": OverflowSet,
}


class Beside(TypedDict, total=False):
    """Revisions that get requests beside those with a share: of whom is nothing said, stays.

    `shadow` gets copies, `overflow` what finds no room; None ends either.
    """

    shadow: int | None
    overflow: int | None


@dataclass(frozen=True, slots=True)
class EndpointStates:
    """The endpoints of a home as their events tell, and what is seen of them beside.

    `replicas` are those that were last known to answer; `outage` says what is not running, and
    `troubles` why revisions have no replica.
    """

    lives: Mapping[str, EndpointLife]
    replicas: Mapping[tuple[str, int], tuple[str, ...]]
    outage: wiring.Outage
    troubles: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def trouble(self, life: EndpointLife, revision: Revision) -> str:
        """Return why a live revision has no replica, where that is known."""
        live = revision.state is not RevisionState.RETIRED and not self.urls(life, revision)
        return self.troubles.get((life.name, revision.number), "") if live else ""

    def urls(self, life: EndpointLife, revision: Revision) -> tuple[str, ...]:
        """Return the replicas of a revision that can answer."""
        return () if self.down(revision) else self.replicas.get((life.name, revision.number), ())

    def down(self, revision: Revision) -> str:
        """Return why a revision of ours can't answer; empty where nothing is in the way."""
        live = revision.deployment and revision.state is not RevisionState.RETIRED
        return self.outage.ours if live else ""

    def state(self, life: EndpointLife, revision: Revision) -> str:
        """Return the state of a revision; one that is ready is no more while none answers."""
        deployment = revision.deployment
        if self.down(revision):
            return DOWN
        if self.trouble(life, revision):
            return BROKEN
        if (
            deployment is None
            or revision.state is not RevisionState.READY
            or self.urls(life, revision)
        ):
            return str(revision.state)
        return str(RevisionState.STARTING) if deployment.endpoint.idle is None else RESTS

    def unanswered(self, life: EndpointLife) -> str:
        """Return why an endpoint that has traffic does not answer; empty where it may."""
        if not life.shares:
            return ""
        parts = {
            self.down(life.revisions[number]) for number, share in life.shares.items() if share
        }
        return self.outage.all or ("" if "" in parts else next(iter(parts), ""))

    def figures(self, life: EndpointLife) -> Mapping[str, TrafficFigures]:
        """Return what the gateway has counted, of each revision of an endpoint by its name."""
        try:
            counted = wiring.traffic(wiring.home()).figures(life.name)
        except ServingError:
            counted = {}
        return {
            revision.name: counted.get(revision.name, NOTHING)
            for revision in life.revisions.values()
        }


def endpoints(name: str | None = None) -> EndpointStates:
    """Return all endpoints, or the one of that name."""
    home = wiring.home()
    store = wiring.database(home)
    lives = store.endpoints() if name is None else {name: store.endpoint(name)}
    return EndpointStates(lives, store.replicas(), wiring.outage(home), store.troubles())


def gateway_url() -> str:
    """Return the address at which clients reach the endpoints.

    Raises:
        ServingError: No gateway is up.
    """
    return wiring.gateway_url(wiring.home())


def way_up() -> str:
    """Return the command that brings up what serves, on the cluster that endpoints are on."""
    return wiring.way_up(wiring.home())


def newest_served() -> str:
    """Return the name of the endpoint whose traffic has moved last.

    Raises:
        NotFoundError: None is served.
    """
    served = _served()
    if not served:
        message = "no endpoint is served; launch a pipeline that serves: pipeline=r2"
        raise NotFoundError(message)
    return max(served, key=lambda name: served[name].moves[-1].at)


def base_url(name: str) -> str:
    """Return the base URL of the API of an endpoint that is served.

    Raises:
        NotFoundError: It is not served.
        ServingError: No gateway is up.
    """
    served = _served()
    if name not in served:
        names = ", ".join(sorted(served)) or "none"
        raise NotFoundError(f"no endpoint {name!r}; served now: {names}")
    return f"{gateway_url()}/{name}/v1"


def _served() -> dict[str, EndpointLife]:
    lives = wiring.database(wiring.home()).endpoints()
    return {name: life for name, life in lives.items() if life.shares}


def served_life(name: str) -> EndpointLife:
    """Return an endpoint that has traffic.

    Raises:
        NotFoundError: It has none.
    """
    store = wiring.database(wiring.home())
    life = store.endpoint(name)
    if life.leading is None:
        served = ", ".join(n for n, other in store.endpoints().items() if other.shares) or "none"
        raise NotFoundError(f"no endpoint {name!r} is served; served: {served}")
    return life


def follow_moved(life: EndpointLife, events: Sequence[TrafficEvent]) -> None:
    """Commit how traffic moves, and have the registry's champions follow."""
    home = wiring.home()
    store = wiring.database(home)
    store.follow(life, events, store.now())
    wiring.follow_traffic(home, store.endpoint(life.name))


def traffic(endpoint: str, shares: Mapping[int, int], **beside: Unpack[Beside]) -> Change[None]:
    """Share the traffic of an endpoint between its revisions, in percent by their numbers.

    Without `shares` they stay as they are.

    Raises:
        TransitionError: A revision can't have what it is given.
    """
    others = cast("Mapping[str, int | None]", beside)
    store = wiring.database(wiring.home())
    life, now = store.endpoint(endpoint), store.now()
    reason = f"by {wiring.user()}"
    events: list[TrafficEvent] = [SharesMoved(shares, reason)] if shares else []
    events += [_EVENTS[what](number, reason) for what, number in others.items()]
    moved = life
    try:
        for event in events:
            moved = follow(moved, event, now)
    except TransitionError as error:
        live = ", ".join(f"{r.name} ({r.state})" for r in life.live) or "none"
        raise TransitionError(f"{error}; revisions: {live}") from None
    parts = [f"r{number} {share} %" for number, share in moved.shares.items()]
    parts += [f"{what} {'none' if n is None else f'r{n}'}" for what, n in others.items()]
    what = f"share the traffic of {life.name}: {', '.join(parts)}"
    return Change(what, lambda: follow_moved(life, events))


def give_all(life: EndpointLife, earlier: Revision) -> Change[None]:
    """Give all traffic of an endpoint back to a revision that is ready."""
    moved = SharesMoved({earlier.number: WHOLE}, f"rolled back by {wiring.user()}")
    what = f"give all traffic of {life.name} to {earlier.name} on {earlier.pool}"
    return Change(what, lambda: follow_moved(life, [moved]))


def undeploy(endpoint: str, revision: int | None = None) -> Change[str]:
    """Retire an endpoint, or a revision by its number; return what has become of it, in a line.

    Replicas go once their streams have ended.

    Raises:
        NotFoundError: There is no such endpoint.
        ConfigError: The revision has all traffic while another could take it.
        TransitionError: There is no such revision, or it is retired.
    """
    store = wiring.database(wiring.home())
    life, reason = store.endpoint(endpoint), f"taken away by {wiring.user()}"
    if not life.live:
        names = (
            ", ".join(name for name, other in store.endpoints().items() if other.live) or "none"
        )
        raise NotFoundError(f"no endpoint {endpoint!r}; there are: {names}")
    if revision is None:
        return _end(life, reason)
    retired = RevisionRetired(revision, reason)
    _check_retired(life, retired.number)
    follow(life, retired, store.now())

    def make() -> str:
        store.follow(life, [retired], store.now())
        return f"Revision r{retired.number} of {life.name} is retired."

    return Change(f"retire r{revision} of {life.name}", make)


def _end(life: EndpointLife, reason: str) -> Change[str]:
    def make() -> str:
        store = wiring.database(wiring.home())
        revisions.end(store, life, reason, store.now())
        return f"Endpoint {life.name} answers no more."

    names = ", ".join(revision.name for revision in life.live)
    return Change(f"retire all of {life.name}: {names}", make)


def _check_retired(life: EndpointLife, number: int) -> None:
    """Refuse to retire who has all traffic while another could take it."""
    ready = (revision for revision in life.live if revision.state is RevisionState.READY)
    other = next((revision.name for revision in ready if revision.number != number), "")
    if life.shares.get(number) and len(life.shares) == 1 and other:
        what = f"r{number} has all traffic of {life.name!r}"
        hint = f"`traffic {life.name} {other}=100` moves it, `undeploy {life.name}` ends it all"
        raise ConfigError([Problem("undeploy", what, hint)])
