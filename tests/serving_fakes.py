"""Fakes of what endpoints stand on: replicas that are deployed at once, and traffic on paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.core.endpoints.api_keys import ApiKey, KeyRules, Requirement
from orchestrator.core.endpoints.life import Deployment, EndpointEvent, EndpointLife, follow
from orchestrator.core.endpoints.probes import Probe, ProbeAnswer
from orchestrator.core.endpoints.promotion import TrafficFigures
from orchestrator.core.errors import ConflictError, ServingError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import (
    Failed,
    Message,
    PoolState,
    Replacement,
    ReplicaWeights,
    RevisionStatus,
    Succeeded,
    Waiting,
)


class FakeReplicas:
    """The port `Serving` for single revisions; those of pools in `broken` never come up."""

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self.broken = set(broken)
        self.there: dict[str, Deployment] = {}
        self.asked: dict[str, Deployment] = {}
        self.cancelled: list[str] = []
        self.away = False
        self.identity = "here"
        self.state: dict[str, PoolState] = {}
        self.starting = 0
        self.replicas: dict[str, dict[str, ReplicaWeights]] = {}
        self.refusals: dict[str, str] = {}
        self.misplaced: dict[str, tuple[str, ...]] = {}
        self.room = True
        self.replacing: dict[str, tuple[Deployment, int]] = {}
        self.replacements: dict[str, Replacement] = {}
        self.updated: list[tuple[str, str]] = []

    def cluster(self) -> str:
        if self.away:
            raise ServingError("the cluster does not answer")
        return self.identity

    def start(self, deployment: Deployment) -> None:
        self.asked[deployment.key] = deployment

    def poll(self, key: str) -> Sequence[Message]:
        if key in self.replacing:
            return self._replace(key)
        made = self.asked.pop(key, None)
        if made is None:
            return ()
        if made.pool.name in self.broken:
            failure = Failure(kind=FailureKind.SERVING, evidence="no kernel", pool=made.pool.name)
            return (Failed(failure),)
        self.there[made.application] = made
        return (Succeeded(None, {"ready_seconds": 1.0}),)

    def cancel(self, key: str) -> None:
        self.asked.pop(key, None)
        self.replacing.pop(key, None)
        self.cancelled.append(key)

    def settle(self) -> None:
        pass

    def delete(self, name: str) -> None:
        self.state.pop(name, None)
        if self.there.pop(name, None) is None:
            raise ServingError(f"no revision {name!r}")

    def live(self) -> Mapping[str, RevisionStatus]:
        if self.away:
            raise ServingError("the cluster does not answer")
        return {
            name: RevisionStatus(
                pool=made.pool.name,
                state=self.state.get(name, PoolState.UP),
                urls=() if name in self.state else (f"http://{name}/{name}",),
                starting=self.starting if name in self.state else 0,
                misplaced=self.misplaced.get(name, ()),
                replacement=self.replacements.get(name),
            )
            for name, made in self.there.items()
        }

    def replace(self, deployment: Deployment, count: int) -> None:
        """Have them replaced at the next question, where a test has left `room`."""
        self.replacing[deployment.key] = deployment, count

    def end_replacement(self, name: str, *, takes_over: bool) -> None:
        ends = Replacement.READY if takes_over else Replacement.STARTING
        assert self.replacements.pop(name) is ends

    def _replace(self, key: str) -> Sequence[Message]:
        if not self.room:
            return (Waiting("pool 'a' is busy"),)
        made, _ = self.replacing.pop(key)
        if made.pool.name in self.broken:
            return (Failed(Failure(kind=FailureKind.SERVING, evidence="no kernel")),)
        self.replacements[made.application] = Replacement.READY
        self.misplaced.pop(made.application)
        return (Succeeded(None, {"ready_seconds": 1.0}),)

    def weights(self, deployment: Deployment) -> Mapping[str, ReplicaWeights]:
        """Return what a test has set, else that each serves what it was deployed with."""
        name = deployment.application
        alike = {
            f"http://{name}/{name}": ReplicaWeights(version=made.weights)
            for made in [self.there.get(name)]
            if made
        }
        return self.replicas.setdefault(name, alike)

    def update(self, deployment: Deployment, replica: str, *, wait: bool = True) -> None:
        """Take everything but what `refusals` has a reason against."""
        name, version = deployment.application, deployment.weights
        self.updated.append((replica, version))
        weights = self.replicas[name][replica]
        if reason := self.refusals.get(version):
            refused = replace(weights, refused=version, reason=reason)
            self.replicas[name][replica] = refused
            if wait:
                raise ServingError(reason)
            return
        self.replicas[name][replica] = ReplicaWeights(version=version)


class MemoryEndpoints:
    """The ports of all that is kept of endpoints, in memory."""

    def __init__(self) -> None:
        self.lives: dict[str, EndpointLife] = {}
        self.noted: dict[tuple[str, int], tuple[str, ...]] = {}
        self.last: dict[str, float] = {}
        self.wrong: dict[tuple[str, int], str] = {}
        self.leases: dict[str, str] = {}
        self.now: Callable[[], float] = lambda: 0.0

    def endpoint(self, name: str) -> EndpointLife:
        return self.lives.get(name, EndpointLife(name=name))

    def endpoints(self) -> Mapping[str, EndpointLife]:
        return dict(self.lives)

    def follow(self, life: EndpointLife, events: Sequence[EndpointEvent], at: float) -> None:
        if life.seq != self.endpoint(life.name).seq:
            raise ConflictError(life.name)
        for event in events:
            life = follow(life, event, at)
        self.lives[life.name] = life

    def note_replicas(self, endpoint: str, revision: int, urls: Sequence[str]) -> None:
        self.noted.pop((endpoint, revision), None)
        if urls:
            self.noted[endpoint, revision] = tuple(urls)

    def replicas(self) -> Mapping[tuple[str, int], tuple[str, ...]]:
        return dict(self.noted)

    def hold(self, cluster: str, holder: str, seconds: float) -> bool:
        """Give the lease to who comes first, until a test takes it away."""
        return self.leases.setdefault(cluster, holder) == holder

    def note_trouble(self, endpoint: str, revision: int, reason: str) -> None:
        self.wrong.pop((endpoint, revision), None)
        if reason:
            self.wrong[endpoint, revision] = reason

    def troubles(self) -> Mapping[tuple[str, int], str]:
        return dict(self.wrong)

    def note_asked(self, endpoint: str) -> None:
        self.last[endpoint] = self.now()

    def idle_seconds(self) -> Mapping[str, float]:
        return {endpoint: self.now() - at for endpoint, at in self.last.items()}


class MemoryKeys:
    """The port `KeyStore`, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, ApiKey] = {}
        self.rules = KeyRules()
        self.key_reads = 0

    def add_key(self, key: ApiKey) -> None:
        first = not self.keys
        self.keys[key.name] = key
        self._change(Requirement.ON if first else self.rules.required)

    def change_key(self, key: ApiKey) -> None:
        self.keys[key.name] = key
        self._change(self.rules.required)

    def drop_key(self, name: str) -> None:
        del self.keys[name]
        self._change(self.rules.required)

    def api_keys(self) -> Sequence[ApiKey]:
        self.key_reads += 1
        return list(self.keys.values())

    def require_keys(self, *, on: bool) -> None:
        self._change(Requirement.ON if on else Requirement.OFF)

    def key_rules(self) -> KeyRules:
        return self.rules

    def _change(self, required: Requirement) -> None:
        self.rules = KeyRules(required, f"{self.rules.stamp}+")


@dataclass
class FakeTraffic:
    """The port `Traffic`: figures that a test sets, and answers by model and revision.

    A revision answers by its text in `answer_of`, by log-probabilities in `scores_of`, by the
    status in `status_of` (by revision, or by revision and path), else alike.
    """

    told: dict[str, TrafficFigures] = field(default_factory=dict)
    answer_of: dict[str, str] = field(default_factory=dict)
    scores_of: dict[str, list[float]] = field(default_factory=dict)
    status_of: dict[str, int] = field(default_factory=dict)
    predictors: set[str] = field(default_factory=set)
    seconds_of: dict[str, float] = field(default_factory=dict)
    vector_of: dict[str, list[float]] = field(default_factory=dict)  # of those that only embed
    asked: list[tuple[str, Probe]] = field(default_factory=list)
    ready: bool = True
    away: bool = False
    crowd: int = 0

    def waiting(self, endpoint: str) -> int:
        self.figures(endpoint)
        return self.crowd

    def figures(self, endpoint: str) -> Mapping[str, TrafficFigures]:
        if self.away:
            raise ServingError(f"the gateway of {endpoint} does not answer")
        return dict(self.told)

    def answers(self, endpoint: str) -> bool:
        return self.ready and bool(endpoint)

    def ask(self, url: str, token: str, probe: Probe) -> ProbeAnswer:
        assert token
        name = url.rpartition("/")[2]
        self.asked.append((name, probe))
        status = self.status_of.get(name + probe.path, self.status_of.get(name, 200))
        if status != 200:
            return ProbeAnswer(status, 0.01, {"error": "as a test wants it"})
        if probe.body is None or probe.path == "/v1/predict":
            return ProbeAnswer(200, 0.01, {"status": "ok"})
        if name in self.predictors:
            return ProbeAnswer(400, 0.01, {"error": "it answers at /v1/predict"})
        body = probe.body
        assert isinstance(body, dict)
        if (probe.path == "/v1/embeddings") != (name in self.vector_of):
            return ProbeAnswer(404, 0.01, {"error": "not here"})
        if name in self.vector_of:
            return ProbeAnswer(200, 0.01, {"data": [{"embedding": self.vector_of[name]}]})
        text = self.answer_of.get(name, f"<{body.get('prompt')}>")
        choice: dict[str, object] = {"text": text, "message": {"content": text}}
        if body.get("echo") and name in self.scores_of:
            choice["logprobs"] = {"token_logprobs": [None, *self.scores_of[name]]}
        return ProbeAnswer(200, self.seconds_of.get(name, 0.01), {"choices": [choice]})
