"""A new revision beside the old one: equal answers before traffic moves, figures while it does."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.endpoints import Deployment, Revision
from orchestrator.core.errors import ServingError
from orchestrator.core.policy import Rollout
from orchestrator.core.rollout import NOTHING, Figures, disagreement, judge
from orchestrator.ports import EndpointStore, Traffic

# Asked where the config names no probes, and both revisions have the same model.
PROBES = ("12 + 30 =", "The quick brown fox", "def add(a, b):", "1 2 3 4")


class Canary:
    """What `traffic` tells of a new revision, `made`, and of `old`, which led when it came."""

    def __init__(
        self, traffic: Traffic, store: EndpointStore, old: Revision | None, made: Deployment
    ) -> None:
        self._traffic = traffic
        self._store = store
        self._old, self._made = old, made
        self._began: Mapping[str, Figures] = {}
        self._last: tuple[Figures, Figures] = NOTHING, NOTHING

    def compare(self, rules: Rollout) -> str:
        """Return why the answers to the probes differ too much, or nothing.

        Raises:
            ServingError: A replica does not answer.
        """
        old = self._old.deployment if self._old else None
        same = old is not None and old.model.digest == self._made.model.digest
        probes = rules.probes or (PROBES if same else ())
        if old is None or not probes or self.alone:
            return ""
        theirs, ours = (self._answers(one, probes) for one in (old, self._made))
        return disagreement(rules, theirs, ours)

    @property
    def alone(self) -> bool:
        """Whether the old revision is one of ours that has no replica any more."""
        old = self._old.deployment if self._old else None
        if old is None:
            return False
        return not self._store.replicas().get((old.endpoint.name, old.revision))

    def begin(self) -> None:
        """Count from now on."""
        try:
            self._began = self._traffic.figures(self._made.endpoint.name)
        except ServingError:
            self._began = {}

    def verdict(self, rules: Rollout) -> str:
        """Return why the new revision must go back, or nothing."""
        try:
            now = self._traffic.figures(self._made.endpoint.name)
        except ServingError:
            return ""  # a gateway that begins anew; its clients tell by themselves
        old = self._of(now, self._old.name if self._old else None)
        new = self._of(now, self._name)
        if old.requests or self._last == (NOTHING, NOTHING):
            self._last = old, new
        else:  # the old one has no traffic any more: its last figures stay
            old, self._last = self._last[0], (self._last[0], new)
        return judge(rules, old, new)

    def figures(self) -> Mapping[str, float]:
        """Return the figures of the last step, for the record."""
        old, new = self._last
        if not new.requests:
            return {}
        return {
            "canary/requests": new.requests,
            "canary/error_rate": new.error_rate,
            "canary/ttft_ms": 1e3 * new.to_first,
            "canary/old_ttft_ms": 1e3 * old.to_first,
            "canary/token_ms": 1e3 * new.per_token,
            "canary/old_token_ms": 1e3 * old.per_token,
        }

    @property
    def _name(self) -> str:
        return f"r{self._made.revision}"

    def _of(self, now: Mapping[str, Figures], name: str | None) -> Figures:
        if name is None:
            return NOTHING
        return now.get(name, NOTHING).since(self._began.get(name, NOTHING))

    def _answers(self, one: Deployment, probes: tuple[str, ...]) -> list[str]:
        urls = self._store.replicas().get((one.endpoint.name, one.revision), ())
        if not urls:
            raise ServingError(f"{one.application} has no replica that answers")
        name = one.endpoint.name
        return [self._traffic.probe(urls[0], one.token, name, prompt) for prompt in probes]
