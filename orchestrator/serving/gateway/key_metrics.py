"""What each API key asks and uses, for Prometheus, by the key's name: its secret is in no series.

Keys that were revoked have no series any more. Only so many have some of their own; what the
others do is told of `other`, and of clients without a key of an empty name.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, generate_latest

from orchestrator.serving.gateway.routes import Table

_LABELS = ("endpoint", "key")
_MOST = 1000  # keys with series of their own
_OTHER = "other"


class KeyMetrics:
    """The series of all keys, in a registry of their own: who sums up the endpoints reads none."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests, refused ones too.", "code")
        self._tokens = self._counter("tokens", "Tokens.", "gen_ai_token_type")
        self._queued = self._counter("queue_seconds", "Wait for a replica.")
        self._by_place: dict[tuple[str, str], _KeySeries] = {}
        self._names: set[str] = set()

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def count(self, endpoint: str, key: str, status: int, queued: float) -> None:
        """Count a request that was answered by `status` after a wait of `queued` seconds."""
        series = self._series(endpoint, key)
        series.code(status).inc()
        series.queued.inc(queued)

    def use(self, endpoint: str, key: str, prompt: int, completion: int) -> None:
        """Count what an answer took."""
        series = self._series(endpoint, key)
        series.prompt.inc(prompt)
        series.completion.inc(completion)

    def forget(self, table: Table) -> None:
        """Drop the series of keys and endpoints that are no more."""
        keys = {"", _OTHER, *(key.name for key in table.keys.values())}
        for endpoint, key in list(self._by_place):
            if key not in keys or (endpoint and endpoint not in table.endpoints):
                self._by_place.pop((endpoint, key), None)
                for metric in (self._requests, self._tokens, self._queued):
                    metric.remove_by_labels({"endpoint": endpoint, "key": key})
        self._names = {key for _, key in list(self._by_place)}

    def _series(self, endpoint: str, key: str) -> _KeySeries:
        series = self._by_place.get((endpoint, key))
        if series is not None:
            return series
        if key not in self._names and len(self._names) >= self._most:
            key = _OTHER
        self._names.add(key)
        return self._by_place.setdefault((endpoint, key), _KeySeries(self, endpoint, key))

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(
            f"orchestrator_key_{name}", what, (*_LABELS, *labels), registry=self._registry
        )


class _KeySeries:
    """The children for one key at one endpoint."""

    def __init__(self, metrics: KeyMetrics, endpoint: str, key: str) -> None:
        self._requests = metrics._requests  # noqa: SLF001 - a part of it
        self._where = (endpoint, key)
        self._codes: dict[int, Counter] = {}
        self.prompt = metrics._tokens.labels(endpoint, key, "input")  # noqa: SLF001
        self.completion = metrics._tokens.labels(endpoint, key, "output")  # noqa: SLF001
        self.queued = metrics._queued.labels(endpoint, key)  # noqa: SLF001

    def code(self, status: int) -> Counter:
        counter = self._codes.get(status)
        if counter is None:
            counter = self._codes[status] = self._requests.labels(*self._where, str(status))
        return counter
