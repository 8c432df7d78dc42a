"""What the gateway counts, for Prometheus: by endpoint, revision and pool.

Errors are those of replicas, also where another replica then answered: what a canary is judged by.
Names follow Prometheus' conventions, and OpenTelemetry's for generative AI where it has one
(`gen_ai_...`). Series of a revision that has left the table go a while after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.core.endpoints.life import WHOLE
from orchestrator.serving.gateway.key_metrics import KeyMetrics
from orchestrator.serving.gateway.routes import RevisionRoute, Routes
from orchestrator.serving.gateway.slots import Slots

CONTENT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_WHERE = ("endpoint", "revision", "pool")
_Where: TypeAlias = tuple[str, str, str]
_SECONDS_KEPT = 600.0  # of a revision that has left: it may be judged still
_TTFT = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10, 20, 40)
_TPOT = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1)
_WAIT = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60)
_USAGE = tuple(4.0**power for power in range(14))  # as OpenTelemetry advises
_REASONS = frozenset(
    {"stop", "length", "tool_calls", "function_call", "content_filter"}
    | {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"}
)
_WHOLE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


@dataclass(slots=True)
class Tally:
    """What one answer came to: seconds of `perf_counter`, tokens, its status, and whose it is.

    `url` is the replica that was asked last.

    `first` is when a stream's first event went out; 0 where there is no stream. `queued` are
    seconds that it waited for room at a replica. `sent` is when its
    replica was asked, which worked on `size` choices; `reasons` are why those ended.
    """

    began: float
    sent: float = 0.0
    first: float = 0.0
    last: float = 0.0
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    revision: RevisionRoute | None = None
    endpoint: str = ""
    key: str = ""
    queued: float = 0.0
    url: str = ""
    size: int = 1
    reasons: Sequence[str] = ()

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens


class Metrics:
    """The registry of one gateway; `keys` are the series of API keys."""

    def __init__(self, routes: Routes, now: Callable[[], float] = perf_counter) -> None:
        self._routes, self._now = routes, now
        self._registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the text, and nobody asks for them
        self._series: dict[_Where, _RevisionSeries] = {}
        self._endpoints: set[str] = set()  # of those series that have no revision
        self._gone_since: dict[_Where, float] = {}
        self._refused = self._counter("refused", "Requests refused.", "endpoint", "code")
        self._retries = self._counter("retries", "Requests asked again elsewhere.", "endpoint")
        self._unmirrored = self._counter("unmirrored", "Requests not copied.", "endpoint")
        self._requests = self._counter("requests", "Answers of a revision.", *_WHERE, "code")
        self._errors = self._counter("errors", "Failures of replicas.", *_WHERE, "kind")
        self._finished = self._counter(
            "finished_choices", "Choices of answers, by why they ended.", *_WHERE, "finish_reason"
        )
        self.keys = KeyMetrics()
        self._wait = self._histogram("orchestrator_queue_seconds", "Wait for a replica.", _WAIT)
        server = "gen_ai_server"
        self._first = self._histogram(
            f"{server}_time_to_first_token_seconds", "To the first event of a stream.", _TTFT
        )
        self._each = self._histogram(
            f"{server}_time_per_output_token_seconds", "Mean of a stream after that.", _TPOT
        )
        self._whole = self._histogram(
            f"{server}_request_duration_seconds", "From the request to its end.", _WHOLE
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request.",
            (*_WHERE, "gen_ai_token_type"),
            buckets=_USAGE,
            registry=self._registry,
        )

    def watch(self, slots: Slots) -> None:
        """Tell of requests in flight and in the queue too, which `slots` know."""
        self._registry.register(_Now(self._routes, slots))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        self._forget_retired(self._now())
        return generate_latest(self._registry) + self.keys.text()

    def by_endpoint(self) -> Mapping[str, str]:
        """Return what is told of each endpoint, as lines of the same format."""
        self._forget_retired(self._now())
        lines: dict[str, list[str]] = defaultdict(list)
        for family in self._registry.collect():
            for sample in family.samples:
                endpoint = sample.labels.get("endpoint")
                if endpoint:
                    labels = ",".join(f'{k}="{_escaped(v)}"' for k, v in sample.labels.items())
                    lines[endpoint].append(f"{sample.name}{{{labels}}} {sample.value!r}\n")
        return {endpoint: "".join(samples) for endpoint, samples in lines.items()}

    def refused(self, endpoint: str, status: int) -> None:
        """Count a request that no revision has answered."""
        self._endpoints.add(endpoint)
        self._refused.labels(endpoint, str(status)).inc()

    def retried(self, endpoint: str) -> None:
        """Count a request that is asked again."""
        self._endpoints.add(endpoint)
        self._retries.labels(endpoint).inc()

    def unmirrored(self, endpoint: str) -> None:
        """Count a copy that the shadow had no room for."""
        self._endpoints.add(endpoint)
        self._unmirrored.labels(endpoint).inc()

    def failed(self, endpoint: str, revision: RevisionRoute, kind: str) -> None:
        """Count a failure of a replica."""
        self._errors.labels(endpoint, revision.name, revision.pool, kind).inc()

    def answered(self, endpoint: str, revision: RevisionRoute, tally: Tally) -> None:
        """Count an answer."""
        where = (endpoint, revision.name, revision.pool)
        series = self._series.get(where)
        if series is None:
            series = self._series[where] = _RevisionSeries(self, where)
        series.count(tally)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"orchestrator_{name}", what, labels, registry=self._registry)

    def _forget_retired(self, now: float) -> None:
        """Drop the series of revisions that left the table a while ago, and of revoked keys."""
        table = self._routes.table()
        self.keys.forget(table)
        here = {(e.name, r.name, r.pool) for e in table.endpoints.values() for r in e.revisions}
        for where in list(self._series):
            if self._has_left(where, here, now):
                self._series.pop(where, None)
                labels = dict(zip(_WHERE, where, strict=True))
                for metric in (self._requests, self._errors, self._finished, self._tokens):
                    metric.remove_by_labels(labels)
                for histogram in (self._wait, self._first, self._each, self._whole):
                    histogram.remove_by_labels(labels)
        names = {(name, "", "") for name in ("", *table.endpoints)}
        for name in list(self._endpoints):
            if self._has_left((name, "", ""), names, now):
                self._endpoints.discard(name)
                for counter in (self._refused, self._retries, self._unmirrored):
                    counter.remove_by_labels({"endpoint": name})

    def _has_left(self, where: _Where, here: Container[_Where], now: float) -> bool:
        """Whether `where` is not among those that are `here`, and was not for a while."""
        if where in here:
            self._gone_since.pop(where, None)
            return False
        if now - self._gone_since.setdefault(where, now) <= _SECONDS_KEPT:
            return False
        self._gone_since.pop(where, None)
        return True

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            name,
            what,
            _WHERE,
            buckets=buckets,
            registry=self._registry,
        )


class _RevisionSeries:
    """The children of all metrics for one revision: to look each up costs as much as counting."""

    def __init__(self, metrics: Metrics, where: _Where) -> None:
        self._requests = metrics._requests  # noqa: SLF001 - a part of it
        self._where = where
        self._by_status: dict[int, Counter] = {}
        self._finished = metrics._finished  # noqa: SLF001
        self._by_reason: dict[str, Counter] = {}
        self._prompt = metrics._tokens.labels(*where, "input")  # noqa: SLF001
        self._completion = metrics._tokens.labels(*where, "output")  # noqa: SLF001
        self._first = metrics._first.labels(*where)  # noqa: SLF001
        self._each = metrics._each.labels(*where)  # noqa: SLF001
        self._whole = metrics._whole.labels(*where)  # noqa: SLF001
        self._wait = metrics._wait.labels(*where)  # noqa: SLF001

    def count(self, tally: Tally) -> None:
        if tally.status:  # else it failed, and is among the errors
            self._of(tally.status).inc()
        for reason in tally.reasons:
            self._ended(reason).inc()
        self._whole.observe(tally.last - tally.began)
        self._wait.observe(tally.queued)
        if tally.prompt_tokens:
            self._prompt.observe(tally.prompt_tokens)
        if tally.completion_tokens:
            self._completion.observe(tally.completion_tokens)
        if tally.first:
            self._first.observe(tally.first - tally.began)
            if tally.completion_tokens > 1:
                self._each.observe((tally.last - tally.first) / (tally.completion_tokens - 1))

    def _ended(self, reason: str) -> Counter:
        counter = self._by_reason.get(reason)
        if counter is None:
            known = reason if reason in _REASONS else "other"  # a server may invent any number
            counter = self._finished.labels(*self._where, known)
            if reason == known:
                self._by_reason[reason] = counter
        return counter

    def _of(self, status: int) -> Counter:
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._requests.labels(*self._where, str(status))
        return counter


class _Now(Collector):
    """What is so at the moment of asking: requests in flight and in the queue, and shares."""

    def __init__(self, routes: Routes, slots: Slots) -> None:
        self._routes = routes
        self._slots = slots

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the names don't clash."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        running = _gauge("requests_running", "Requests at a replica.", _WHERE)
        replicas = _gauge("replicas", "Known replicas.", _WHERE)
        broken = _gauge("endpoint_broken", "Has traffic, and no replica.", _WHERE)
        share = _gauge("traffic_share_ratio", "Share of the traffic.", _WHERE)
        queue = _gauge("requests_waiting", "Requests that wait for a replica.", ("endpoint",))
        waiting, taken = self._slots.waiting(), self._slots.in_use
        for name, route in self._routes.table().endpoints.items():
            queue.add_metric((name,), waiting.get(name, 0))
            for revision in route.revisions:
                where = (name, revision.name, revision.pool)
                running.add_metric(where, sum(taken.get(url, 0) for url in revision.urls))
                replicas.add_metric(where, len(revision.urls))
                share.add_metric(where, revision.share / WHOLE)
                lost = revision.share and not revision.urls and not route.rests
                broken.add_metric(where, float(bool(lost)))
        age = _gauge("routes_age_seconds", "Since the table was read.", ())
        age.add_metric((), self._routes.age())
        yield from (running, replicas, share, broken, queue, age)


def _gauge(name: str, what: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"orchestrator_{name}", what, labels=labels)


def _escaped(text: str) -> str:
    """Return the value of a label as the format wants it."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
