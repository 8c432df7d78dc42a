"""A new revision beside the old one: asked the same before traffic moves, counted while it does.

Both are asked by the rollout itself, past the gateway: the routes that clients use, before the new
one gets any share, and whenever clients are too few for a verdict. A language model has the routes
of completions and of chats, or else that of embeddings; an engine that predicts is asked what its
endpoint's config says, or else whether it is ready.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orchestrator.core.endpoints.life import Deployment, Revision
from orchestrator.core.endpoints.probes import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    PROMPTS,
    READINESS,
    TEXTS,
    Probe,
    ProbeAnswer,
    apart,
    chat,
    completion,
    disagreement,
    embedding,
    limit,
    prediction,
    predicts,
    scores_of,
    scoring,
    text_of,
    turned,
    vector_of,
)
from orchestrator.core.endpoints.promotion import (
    NOTHING,
    CanaryStanding,
    CanaryVerdict,
    RevisionEvidence,
    TrafficFigures,
    judge,
    times_of,
)
from orchestrator.core.errors import ServingError
from orchestrator.core.spec.policy import Rollout
from orchestrator.ports import EndpointStatus, Traffic

Answers = Sequence[ProbeAnswer]
SECONDS_BETWEEN_LOOKS = 0.5
MOST_PROBES = 4  # a look: who looks has more to do
LEAST_PROBES = 2.0  # a step: clients who ask nonsense alone get no good answer from anybody
AWAY = CanaryVerdict(CanaryStanding.UNSURE, "the gateway does not tell its figures")


class Canary:
    """What is known of a new revision, and of `old`, which led when it came."""

    def __init__(
        self, traffic: Traffic, store: EndpointStatus, old: Revision | None, new: Deployment
    ) -> None:
        self._traffic = traffic
        self._store = store
        self._old, self._new = old, new
        self._began: Mapping[str, TrafficFigures] | None = None
        self._step: Mapping[str, TrafficFigures] = {}
        self._probed: dict[int, TrafficFigures] = {}
        self._probes: tuple[Probe, ...] = ()
        self._probes_sent = 0
        self._last = RevisionEvidence(), RevisionEvidence()

    @property
    def alone(self) -> bool:
        """Whether the old revision is one of ours that has no replica any more."""
        old = self._old.deployment if self._old else None
        if old is None:
            return False
        return not self._urls(old)

    def compare(self, rules: Rollout) -> str:
        """Return why the new revision must not get any traffic, or nothing.

        What the old one does not answer, as when its replicas have died, is compared with nothing.

        Raises:
            ServingError: The new revision has no replica.
        """
        probes = self._questions(rules)
        old = None if self.alone or self._old is None else self._old.deployment
        ours = self._answers(self._new, probes)
        theirs = self._answers(old, probes) if old else ours
        compared = theirs if any(answer.good for answer in theirs) else ours
        self._probes = tuple(p for p, answer in zip(probes, compared, strict=True) if answer.good)
        if not any(answer.good for answer in ours):
            return f"it answers none of {len(ours)} probes: {_in_words(ours[0])}"
        failing = _failing(probes, theirs, ours)
        if failing or old is None or not self._same(old):
            return failing
        return self._apart(rules, old, (theirs, ours))

    def probe(self, rules: Rollout) -> None:
        """Ask both a few questions more, unless clients and probes are enough for a verdict.

        They are so many that a hold suffices, as far as that goes.
        """
        looks = max(rules.hold / SECONDS_BETWEEN_LOOKS, 1.0)
        for _ in range(min(math.ceil(rules.requests / looks), MOST_PROBES)):
            self._probe(rules)

    def _probe(self, rules: Rollout) -> None:
        step = self._last[1].step.requests
        asked = self._probed.get(self._new.revision, NOTHING).requests
        enough = asked >= LEAST_PROBES and step + asked >= rules.requests
        if not self._probes or (enough and not judge(rules, *self._last).doubtful):
            return
        probe = self._probes[self._probes_sent % len(self._probes)]
        self._probes_sent += 1
        old = self._old.deployment if self._old else None
        for revision in (self._new, old):
            urls = self._urls(revision) if revision else ()
            if revision is not None and urls:
                url = urls[self._probes_sent % len(urls)]
                answer = self._traffic.ask(url, revision.token, probe)
                before = self._probed.get(revision.revision, NOTHING)
                self._probed[revision.revision] = before.plus(_counted(answer))

    def begin(self) -> None:
        """Count a step from now on."""
        self._step = self._figures() or {}
        if self._began is None:
            self._began = self._step
        self._probed = {}

    def verdict(self, rules: Rollout) -> CanaryVerdict:
        """Return how the new revision stands."""
        now = self._figures()
        if now is None:
            return AWAY
        old = self._evidence(now, self._old.number if self._old else None)
        new = self._evidence(now, self._new.revision)
        if self._last[0].step.requests and not old.step.requests:
            # The old one has no traffic any more: what it last did stays the measure.
            old = RevisionEvidence(traffic=old.traffic, step=self._last[0].step, probes=old.probes)
        self._last = old, new
        return judge(rules, old, new)

    def figures(self) -> Mapping[str, float]:
        """Return the figures of the last step, for the record."""
        old, new = (evidence.step for evidence in self._last)
        probes = self._last[1].probes.requests
        if not new.requests and not probes:
            return {}
        return {
            "canary/requests": new.requests,
            "canary/probes": probes,
            "canary/error_rate": new.error_rate,
            "canary/ttft_ms": 1e3 * new.to_first,
            "canary/old_ttft_ms": 1e3 * old.to_first,
            "canary/token_ms": 1e3 * new.per_token,
            "canary/old_token_ms": 1e3 * old.per_token,
            "canary/answer_p50_ms": 1e3 * new.whole.quantile(0.5),
            "canary/answer_p95_ms": 1e3 * new.whole.quantile(0.95),
        }

    # --- what was counted ------------------------------------------------------------------------

    def _figures(self) -> Mapping[str, TrafficFigures] | None:
        try:
            return self._traffic.figures(self._new.endpoint.name)
        except ServingError:
            return None  # a gateway that begins anew; its clients tell by themselves

    def _evidence(self, now: Mapping[str, TrafficFigures], number: int | None) -> RevisionEvidence:
        if number is None:
            return RevisionEvidence()
        name = f"r{number}"
        total = now.get(name, NOTHING)
        return RevisionEvidence(
            traffic=total.since((self._began or {}).get(name, NOTHING)),
            step=total.since(self._step.get(name, NOTHING)),
            probes=self._probed.get(number, NOTHING),
        )

    # --- what is asked ---------------------------------------------------------------------------

    def _questions(self, rules: Rollout) -> tuple[Probe, ...]:
        """Return what both are asked: each prompt by both routes, or what a predictor takes."""
        name, probe = self._new.endpoint.name, self._new.endpoint.probe
        if probe is not None:
            return (prediction(probe), READINESS)
        prompts = rules.probes or PROMPTS
        (first,) = self._answers(self._new, [completion(name, prompts[0])])
        if predicts(first):
            return (READINESS,)
        if not first.good and self._embeds(prompts[0]):
            return tuple(embedding(name, prompt) for prompt in prompts)
        return tuple(route(name, prompt) for prompt in prompts for route in (completion, chat))

    def _embeds(self, text: str) -> bool:
        """Whether the new one embeds instead, and so does the old one: clients ask as before."""
        old = None if self.alone or self._old is None else self._old.deployment
        asked = [embedding(self._new.endpoint.name, text)]
        both = (self._new,) if old is None else (self._new, old)
        return all(
            vector_of(answer) for deployed in both for answer in self._answers(deployed, asked)
        )

    def _urls(self, revision: Deployment) -> tuple[str, ...]:
        place = (revision.endpoint.name, revision.revision)
        return self._store.replicas().get(place, ())

    def _answers(self, revision: Deployment, probes: Sequence[Probe]) -> Answers:
        urls = self._urls(revision)
        if not urls and revision is not self._new:
            return [ProbeAnswer(0, 0.0)] * len(probes)
        if not urls:
            raise ServingError(f"{revision.application} has no replica that answers")
        return [self._traffic.ask(urls[0], revision.token, probe) for probe in probes]

    def _same(self, old: Deployment) -> bool:
        """Whether both serve what was trained once, in whatever format."""
        if old.trained and self._new.trained:
            return old.trained == self._new.trained
        return old.model.digest == self._new.model.digest

    def _apart(self, rules: Rollout, old: Deployment, answers: tuple[Answers, Answers]) -> str:
        """Return why two revisions of one model answer too differently, or nothing."""
        name, allowed = self._new.endpoint.name, {**old.limits, **self._new.limits}
        most = sum(
            limit(deployed.format, allowed, deployed.kl_mean) for deployed in (old, self._new)
        )
        paths = {probe.path for probe in self._probes}
        if paths == {EMBEDDINGS}:
            pairs = [(a, b) for a, b in zip(*answers, strict=True) if a.good]
            vectors = [
                [vector_of(answer) for answer in column] for column in zip(*pairs, strict=True)
            ]
            return turned(vectors[0], vectors[1], most)
        if not paths & {COMPLETIONS, CHAT}:
            return ""  # what an engine predicts is compared by nobody but its own tests
        asked = [scoring(name, text) for text in (*TEXTS, *rules.probes)]
        scores = [
            [scores_of(answer) for answer in self._answers(revision, asked)]
            for revision in (old, self._new)
        ]
        both = [pair for pair in zip(*scores, strict=True) if pair[0] and pair[1]]
        if both:
            theirs, ours = zip(*both, strict=True)
            return apart(theirs, ours, most)
        if old.format != self._new.format:
            return ""  # greedy answers of two formats differ by rounding
        pairs = [(a, b) for a, b in zip(*answers, strict=True) if a.good]
        texts = [[text_of(answer) for answer in column] for column in zip(*pairs, strict=True)]
        return disagreement(rules.agreement, *texts) if texts else ""


def _failing(probes: Sequence[Probe], theirs: Answers, ours: Answers) -> str:
    """Return which route the new revision answers by nothing good, though the old one does."""
    for path in dict.fromkeys(probe.path for probe in probes):
        mine = [n for n, probe in enumerate(probes) if probe.path == path]
        if any(ours[n].good for n in mine) or not all(theirs[n].good for n in mine):
            continue
        return f"it fails {len(mine)} of {len(mine)} probes of {path}: {_in_words(ours[mine[0]])}"
    return ""


def _in_words(answer: ProbeAnswer) -> str:
    if not answer.status:
        return f"nothing came within {answer.seconds:.0f} s"
    return f"{answer.status}, {str(answer.body)[:120]!r}"


def _counted(answer: ProbeAnswer) -> TrafficFigures:
    """Return one answer as figures."""
    if not answer.status:
        return TrafficFigures(requests=1.0, errors=1.0, whole=times_of(answer.seconds))
    statuses = {answer.status: 1.0}
    return TrafficFigures(requests=1.0, statuses=statuses, whole=times_of(answer.seconds))
