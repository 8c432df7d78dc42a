"""What the gateway counts, for Prometheus: by endpoint, revision and pool.

Errors are those of replicas, also where another replica then answered: what a canary is judged by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.serving.routes import RevisionRoute, Routes
from orchestrator.serving.slots import Slots

CONTENT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_WHERE = ("endpoint", "revision", "pool")
_TTFT = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10, 20, 40)
_TPOT = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1)
_WHOLE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


@dataclass(slots=True)
class Tally:
    """What one answer came to: seconds of `perf_counter`, tokens, its status, and whose it is.

    `first` is when a stream's first event went out; 0 where there is no stream.
    """

    began: float
    first: float = 0.0
    last: float = 0.0
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    revision: RevisionRoute | None = None

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens


class Metrics:
    """The registry of one gateway."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._registry = CollectorRegistry()
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._refused = self._counter("refused", "Refused at the edge.", "endpoint", "status")
        self._retries = self._counter("retries", "Asked again elsewhere.", "endpoint")
        self._unmirrored = self._counter("unmirrored", "Not copied: no room.", "endpoint")
        self._requests = self._counter("requests", "Answered by a revision.", *_WHERE, "status")
        self._errors = self._counter("errors", "Failures of replicas.", *_WHERE, "kind")
        self._tokens = self._counter("tokens", "Tokens.", *_WHERE, "kind")
        self._first = self._histogram("time_to_first_token", "Of streams.", _TTFT)
        self._each = self._histogram("time_per_output_token", "Of streams, mean.", _TPOT)
        self._whole = self._histogram("request", "From the request to its end.", _WHOLE)

    def watch(self, slots: Slots) -> None:
        """Tell of requests in flight and in the queue too, which `slots` know."""
        self._registry.register(_Now(self._routes, slots))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def by_endpoint(self) -> Mapping[str, str]:
        """Return what is told of each endpoint, as lines of the same format."""
        lines: dict[str, list[str]] = defaultdict(list)
        for family in self._registry.collect():
            for sample in family.samples:
                endpoint = sample.labels.get("endpoint")
                if endpoint and not sample.name.endswith("_created"):
                    labels = ",".join(f'{k}="{_escaped(v)}"' for k, v in sample.labels.items())
                    lines[endpoint].append(f"{sample.name}{{{labels}}} {sample.value!r}\n")
        return {endpoint: "".join(told) for endpoint, told in lines.items()}

    def refused(self, endpoint: str, status: int) -> None:
        """Count a request that no revision has answered."""
        self._refused.labels(endpoint, str(status)).inc()

    def retried(self, endpoint: str) -> None:
        """Count a request that is asked again."""
        self._retries.labels(endpoint).inc()

    def unmirrored(self, endpoint: str) -> None:
        """Count a copy that the shadow had no room for."""
        self._unmirrored.labels(endpoint).inc()

    def failed(self, endpoint: str, revision: RevisionRoute, kind: str) -> None:
        """Count a failure of a replica."""
        self._errors.labels(endpoint, revision.name, revision.pool, kind).inc()

    def answered(self, endpoint: str, revision: RevisionRoute, tally: Tally) -> None:
        """Count an answer."""
        where = (endpoint, revision.name, revision.pool)
        series = self._series.get(where)
        if series is None:
            series = self._series[where] = _Series(self, where)
        series.count(tally)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"orchestrator_{name}", what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"orchestrator_{name}_seconds",
            what,
            _WHERE,
            buckets=buckets,
            registry=self._registry,
        )


class _Series:
    """The children of all metrics for one revision: to look each up costs as much as counting."""

    def __init__(self, metrics: Metrics, where: tuple[str, str, str]) -> None:
        self._requests = metrics._requests  # noqa: SLF001 - a part of it
        self._where = where
        self._by_status: dict[int, Counter] = {}
        self._prompt = metrics._tokens.labels(*where, "prompt")  # noqa: SLF001
        self._completion = metrics._tokens.labels(*where, "completion")  # noqa: SLF001
        self._first = metrics._first.labels(*where)  # noqa: SLF001
        self._each = metrics._each.labels(*where)  # noqa: SLF001
        self._whole = metrics._whole.labels(*where)  # noqa: SLF001

    def count(self, tally: Tally) -> None:
        if tally.status:  # else it failed, and is among the errors
            self._of(tally.status).inc()
        self._whole.observe(tally.last - tally.began)
        if tally.prompt_tokens:
            self._prompt.inc(tally.prompt_tokens)
        if tally.completion_tokens:
            self._completion.inc(tally.completion_tokens)
        if tally.first:
            self._first.observe(tally.first - tally.began)
            if tally.completion_tokens > 1:
                self._each.observe((tally.last - tally.first) / (tally.completion_tokens - 1))

    def _of(self, status: int) -> Counter:
        found = self._by_status.get(status)
        if found is None:
            found = self._by_status[status] = self._requests.labels(*self._where, str(status))
        return found


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
        flying = GaugeMetricFamily("orchestrator_in_flight", "At a replica.", labels=_WHERE)
        there = GaugeMetricFamily("orchestrator_replicas", "Known replicas.", labels=_WHERE)
        broken = GaugeMetricFamily(
            "orchestrator_endpoint_broken", "Has traffic, and no replica.", labels=_WHERE
        )
        share = GaugeMetricFamily("orchestrator_share", "Percent of traffic.", labels=_WHERE)
        queue = GaugeMetricFamily("orchestrator_queue", "Waiting.", labels=("endpoint",))
        waiting, taken = self._slots.waiting(), self._slots.taken
        for name, route in self._routes.table().endpoints.items():
            queue.add_metric((name,), waiting.get(name, 0))
            for revision in route.revisions:
                where = (name, revision.name, revision.pool)
                flying.add_metric(where, sum(taken.get(url, 0) for url in revision.urls))
                there.add_metric(where, len(revision.urls))
                share.add_metric(where, revision.share)
                lost = revision.share and not revision.urls and not route.rests
                broken.add_metric(where, float(bool(lost)))
        age = GaugeMetricFamily("orchestrator_routes_age_seconds", "Since the table was read.")
        age.add_metric((), self._routes.age())
        yield from (flying, there, share, broken, queue, age)


def _escaped(text: str) -> str:
    """Return the value of a label as the format wants it."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
