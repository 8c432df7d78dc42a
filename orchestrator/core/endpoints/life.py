"""Endpoints: a stable address with revisions behind it, each one model on one pool.

An endpoint is the fold of its events, as a run is. Traffic goes by shares in percent, only to
revisions that are ready, and an event that does not fit is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias, get_args

from orchestrator.core.artifact import ANY_ROOM, ArtifactRef, CacheRoom, ShippedCode
from orchestrator.core.errors import TransitionError
from orchestrator.core.spec.hardware import Format, Pool
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.core.spec.stages import Endpoint, Needs

WHOLE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """All that serving needs to know to deploy a model on a pool as an endpoint's revision.

    `token` is what the gateway shows to a replica: nobody else may ask. `fallbacks` are the pools
    to which it may be switched, in order. `cluster` and `home` say where it was deployed (empty:
    by the first version). `trained` is the digest of what its model was exported from. `limits`
    are the mean KL divergences, nats, that the pipeline's parity gate allows by format, `kl_mean`
    the one that it derived for this model, and `proof` what it made: what an engine server says of
    a few texts is compared with that. `version` names the model where that replaced the first one.
    `measured` is what nodes are told apart by that may be used (`None`: any). `env` has variables
    of its processes, `secrets` where more of them are read, `shipped` their code. `room` is what
    nodes may keep, `patience` the seconds that a failing storage is asked.
    """

    run: str
    stage: str
    attempt: int
    endpoint: Endpoint
    model: ArtifactRef
    format: Format
    pool: Pool
    needs: Needs
    packages: tuple[str, ...]
    code: tuple[str, ...]
    storage: str
    fallbacks: tuple[str, ...] = ()
    revision: int = 1
    token: str = ""
    cluster: str = ""
    home: str = ""
    trained: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    kl_mean: float | None = None
    proof: ArtifactRef | None = None
    version: str = ""
    measured: tuple[str, ...] | None = None
    room: CacheRoom = ANY_ROOM
    patience: float | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    shipped: ShippedCode | None = None

    @property
    def weights(self) -> str:
        """Name of the weights that it serves, which its answers carry."""
        return self.version or f"r{self.revision}-{self.model.digest[:8]}"

    def updated(self, event: RevisionUpdated) -> Deployment:
        """Return it with another model; what was found of the first one proves nothing then."""
        new = replace(self, model=event.model, version=event.version)
        return replace(new, kl_mean=None, proof=None)

    @property
    def key(self) -> str:
        """Name of the attempt that deploys it, unique over all runs."""
        return f"{self.run}/{self.stage}/{self.attempt}"

    @property
    def price(self) -> float | None:
        """US dollars an hour of its replicas, at the least number of them; `None`: unknown."""
        each = self.pool.price
        return None if each is None else each * self.endpoint.replicas * self.needs.devices

    @property
    def application(self) -> str:
        """Name of the revision on its cluster, unique over all homes that use that."""
        return f"{self.home}-{self.name}" if self.home else self.name

    @property
    def name(self) -> str:
        """Name of the revision as people read it: `chat.r3`."""
        return f"{self.endpoint.name}.r{self.revision}"


class RevisionState(StrEnum):
    """State of a revision. RETIRED: it takes no traffic, and its replicas are gone or going."""

    STARTING = "starting"
    READY = "ready"
    RETIRED = "retired"


# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RevisionAdded:
    """Revision `number` was asked for: one of ours, or one outside."""

    number: int
    deployment: Deployment | None = None
    outside: Outside | None = None


@dataclass(frozen=True, slots=True)
class RevisionReady:
    """All replicas of the revision have answered."""

    number: int


@dataclass(frozen=True, slots=True)
class SharesMoved:
    """Revisions share the traffic so, in percent; shadow and overflow stay what they are.

    `rollout` is the revision whose rollout moves it; `None`: a person does, or a way back.
    """

    shares: Mapping[int, int]
    reason: str
    rollout: int | None = None


@dataclass(frozen=True, slots=True)
class ShadowSet:
    """Revision `number` gets copies that nobody reads; `None`: none does. Shares stay."""

    number: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class OverflowSet:
    """Revision `number` gets what finds no room at the others; `None`: none does. Shares stay."""

    number: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class TrafficMoved:
    """Shares, shadow and overflow at once, as the first version stored them.

    `shadow` gets copies that nobody reads; `overflow` gets what finds no room at the others.
    """

    shares: Mapping[int, int]
    reason: str
    shadow: int | None = None
    overflow: int | None = None


@dataclass(frozen=True, slots=True)
class RevisionRetired:
    """The revision takes no traffic any more."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class RevisionUpdated:
    """The revision serves another model of the same storage, by the name `version`."""

    number: int
    model: ArtifactRef
    version: str


TrafficEvent: TypeAlias = SharesMoved | ShadowSet | OverflowSet | TrafficMoved
EndpointEvent: TypeAlias = (
    RevisionAdded | RevisionReady | TrafficEvent | RevisionRetired | RevisionUpdated
)
ENDPOINT_EVENTS: Mapping[str, type[EndpointEvent]] = MappingProxyType(
    {kind.__name__: kind for kind in get_args(EndpointEvent)}
)


# --- the fold ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A revision so far; `since` is when it was asked for (seconds, epoch).

    `updated` is when its weights were last changed; 0 where they never were.
    """

    number: int
    since: float
    deployment: Deployment | None = None
    outside: Outside | None = None
    state: RevisionState = RevisionState.STARTING
    reason: str = ""
    updated: float = 0.0

    @property
    def name(self) -> str:
        """What people call it: `r3`."""
        return f"r{self.number}"

    @property
    def pool(self) -> str:
        """Name of its pool; where it is outside, the address."""
        if self.deployment is not None:
            return self.deployment.pool.name
        return self.outside.address if self.outside else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of traffic, as it was committed at `at` (seconds, epoch)."""

    at: float
    shares: Mapping[int, int]
    reason: str
    overflow: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLife:
    """An endpoint after `seq` events; `rollout` is the revision that its rollout gave a part."""

    name: str
    seq: int = 0
    revisions: Mapping[int, Revision] = field(default_factory=dict)
    shares: Mapping[int, int] = field(default_factory=dict)
    shadow: int | None = None
    overflow: int | None = None
    rollout: int | None = None
    moves: tuple[Move, ...] = ()

    @property
    def taking(self) -> tuple[Revision, ...]:
        """Revisions that requests may go to, copies and overflow too."""
        numbers = {*self.shares, self.shadow, self.overflow}
        return tuple(revision for revision in self.live if revision.number in numbers)

    @property
    def next_number(self) -> int:
        """Number of the revision that would be added next."""
        return max(self.revisions, default=0) + 1

    @property
    def leading(self) -> Revision | None:
        """The revision with the largest share of the traffic; the newer of equals."""
        number = _leader(self.shares)
        return None if number is None else self.revisions[number]

    @property
    def live(self) -> tuple[Revision, ...]:
        """Revisions that are not retired, oldest first."""
        ordered = sorted(self.revisions.values(), key=lambda revision: revision.number)
        return tuple(r for r in ordered if r.state is not RevisionState.RETIRED)

    @property
    def before(self) -> Revision | None:
        """The revision that led before the one that leads now; what a rollback goes back to.

        Whoever led before a way back to an earlier one, as in a rollout that failed, is forgotten.
        """
        led: list[int] = []
        for number in (_leader(move.shares) for move in self.moves):
            if number is not None:
                led = [*led[: led.index(number) if number in led else None], number]
        return self.revisions[led[-2]] if self.shares and led[1:] else None

    def helped_by(self, number: int) -> int | None:
        """Number of the revision that led when revision `number` became its overflow."""
        return next((_leader(m.shares) for m in self.moves if m.overflow == number), None)


def _leader(shares: Mapping[int, int]) -> int | None:
    shared = [(share, number) for number, share in shares.items() if share]
    return max(shared)[1] if shared else None


def follow(life: EndpointLife, event: EndpointEvent, at: float) -> EndpointLife:
    """Return the endpoint after `event`, which happened at `at` seconds since the epoch.

    Raises:
        TransitionError: The event does not fit the endpoint's state.
    """
    if isinstance(event, RevisionAdded):
        after = _added(life, event, at)
    elif isinstance(event, RevisionReady):
        after = _turned(life, event.number, RevisionState.STARTING, RevisionState.READY)
    elif isinstance(event, TrafficEvent):
        after = _moved(life, event, at)
    elif isinstance(event, RevisionUpdated):
        after = _updated(life, event, at)
    else:
        after = _retired(life, event)
    return replace(after, seq=life.seq + 1)


def _added(life: EndpointLife, event: RevisionAdded, at: float) -> EndpointLife:
    if event.number != life.next_number:
        raise _unfit(life, f"revision r{event.number} can't be added, r{life.next_number} can")
    if (event.deployment is None) == (event.outside is None):
        raise _unfit(life, "a revision is one of ours or one outside")
    revision = Revision(
        number=event.number, since=at, deployment=event.deployment, outside=event.outside
    )
    return replace(life, revisions={**life.revisions, event.number: revision})


def _moved(life: EndpointLife, event: TrafficEvent, at: float) -> EndpointLife:
    _check_ready(life, _named(event))
    if isinstance(event, SharesMoved | TrafficMoved):
        if sum(event.shares.values()) != WHOLE or min(event.shares.values()) < 0:
            raise _unfit(life, f"shares {dict(event.shares)!r} are not {WHOLE} percent together")
        shares = {number: share for number, share in event.shares.items() if share}
        mover = event.rollout if isinstance(event, SharesMoved) else None
        part = mover is not None and 0 < shares.get(mover, 0) < WHOLE
        life = replace(life, shares=shares, rollout=mover if part else None)
    if isinstance(event, TrafficMoved):
        life = replace(life, shadow=event.shadow, overflow=event.overflow)
    elif isinstance(event, ShadowSet):
        life = replace(life, shadow=event.number)
    elif isinstance(event, OverflowSet):
        life = replace(life, overflow=event.number)
    elif life.shadow in life.shares:  # it is asked in earnest now, and needs no copies
        life = replace(life, shadow=None)
    move = Move(at=at, shares=life.shares, reason=event.reason, overflow=life.overflow)
    return replace(life, moves=(*life.moves, move))


def _named(event: TrafficEvent) -> tuple[int, ...]:
    """Return all revisions that an event speaks of."""
    if isinstance(event, SharesMoved):
        return tuple(event.shares)
    if isinstance(event, TrafficMoved):
        beside = (number for number in (event.shadow, event.overflow) if number is not None)
        return (*event.shares, *beside)
    return () if event.number is None else (event.number,)


def _check_ready(life: EndpointLife, numbers: tuple[int, ...]) -> None:
    for number in numbers:
        revision = life.revisions.get(number)
        if revision is None or revision.state is not RevisionState.READY:
            state = revision.state if revision else "unknown"
            raise _unfit(life, f"r{number} is {state}, and only ready revisions take traffic")


def _updated(life: EndpointLife, event: RevisionUpdated, at: float) -> EndpointLife:
    revision = life.revisions.get(event.number)
    state = revision.state if revision else "unknown"
    if revision is None or state is not RevisionState.READY:
        raise _unfit(life, f"r{event.number} is {state}, and only ready revisions are updated")
    if revision.deployment is None:
        raise _unfit(life, f"r{event.number} is outside: its weights are somebody else's")
    if not event.version:
        raise _unfit(life, f"the new weights of r{event.number} have no name")
    deployment = revision.deployment.updated(event)
    after = replace(revision, deployment=deployment, updated=at)
    return replace(life, revisions={**life.revisions, event.number: after})


def _retired(life: EndpointLife, event: RevisionRetired) -> EndpointLife:
    if life.shares.get(event.number) and len(life.shares) > 1:
        raise _unfit(life, f"r{event.number} takes traffic; move that first")
    revision = life.revisions.get(event.number)
    if revision is None or revision.state is RevisionState.RETIRED:
        raise _unfit(life, f"there is no live revision r{event.number}")
    gone = replace(revision, state=RevisionState.RETIRED, reason=event.reason)
    shares = {number: share for number, share in life.shares.items() if number != event.number}
    beside = (None if n == event.number else n for n in (life.shadow, life.overflow))
    shadow, overflow = beside
    revisions = {**life.revisions, event.number: gone}
    return replace(life, revisions=revisions, shares=shares, shadow=shadow, overflow=overflow)


def _turned(
    life: EndpointLife, number: int, before: RevisionState, after: RevisionState
) -> EndpointLife:
    revision = life.revisions.get(number)
    state = revision.state if revision else "unknown"
    if revision is None or state is not before:
        raise _unfit(life, f"r{number} is {state}, not {before}")
    return replace(life, revisions={**life.revisions, number: replace(revision, state=after)})


def _unfit(life: EndpointLife, why: str) -> TransitionError:
    return TransitionError(f"endpoint {life.name!r}: {why}")
