"""Gateways as seen from the control plane: their counts, and questions past them.

The counts are in the database, where each gateway writes them: wherever it runs, whoever looks.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from orchestrator.core.endpoints.gateway_entry import Gateway
from orchestrator.core.endpoints.probes import Probe, ProbeAnswer
from orchestrator.core.endpoints.promotion import Times, TrafficFigures
from orchestrator.core.errors import ServingError
from orchestrator.ports import GatewayStore

_SECONDS = 10.0
_LINE = re.compile(r"(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_REQUESTS, _ERRORS = "orchestrator_requests_total", "orchestrator_errors_total"
_TIMES = {
    "gen_ai_server_time_to_first_token_seconds": "first",
    "gen_ai_server_time_per_output_token_seconds": "each",
    "gen_ai_server_request_duration_seconds": "whole",
}


class GatewayTraffic:
    """The port `Traffic`, of all gateways that write to `store`."""

    def __init__(self, store: GatewayStore) -> None:
        self._store = store

    def figures(self, endpoint: str) -> Mapping[str, TrafficFigures]:
        """Return what all gateways have counted together, by name of the revision (`r3`).

        Raises:
            ServingError: None is there to count.
        """
        self._live()
        return figures_in("".join(self._store.counts(endpoint).values()), endpoint)

    def waiting(self, endpoint: str) -> int:
        """Return how many requests wait for room at a replica, at all gateways.

        Raises:
            ServingError: There is no gateway.
        """
        counts = self._store.counts(endpoint)
        texts = (counts.get(gateway.name, "") for gateway in self._live())
        return sum(gauge_in(text, "orchestrator_requests_waiting", endpoint) for text in texts)

    def answers(self, endpoint: str) -> bool:
        """Whether every gateway knows a replica for the endpoint."""
        counts = self._store.counts(endpoint)
        try:
            texts = [counts.get(gateway.name, "") for gateway in self._live()]
        except ServingError:
            return False
        return all(gauge_in(text, "orchestrator_replicas", endpoint) > 0 for text in texts)

    def _live(self) -> Sequence[Gateway]:
        live = [gateway for gateway in self._store.gateways() if gateway.live]
        if not live:
            raise ServingError("no gateway runs; `orchestrator up` starts one")
        return live

    def ask(self, url: str, token: str, probe: Probe) -> ProbeAnswer:
        """Put a question to the replica at `url`, past the gateway."""
        body = None if probe.body is None else json.dumps(probe.body)
        began = time.monotonic()
        try:
            status, answer = _exchange(f"{url}{probe.path}", body, token)
            content: object = json.loads(answer)
        except ServingError:
            return ProbeAnswer(0, time.monotonic() - began)
        except ValueError:
            content = answer
        return ProbeAnswer(status, time.monotonic() - began, content)


def figures_in(text: str, endpoint: str) -> Mapping[str, TrafficFigures]:
    """Return the figures of an endpoint in metrics as Prometheus writes them, by revision.

    The gateway counts what a revision answered and what its replicas failed to: together those
    are the requests that it was given.
    """
    series: dict[str, _RevisionCounts] = defaultdict(_RevisionCounts)
    for line in _LINE.finditer(text):
        labels = dict(_LABEL.findall(line["labels"]))
        if labels.get("endpoint") == endpoint and "revision" in labels:
            series[labels["revision"]].add(line["name"], labels, float(line["value"]))
    return {name: counts.figures() for name, counts in series.items() if counts.counted}


class _RevisionCounts:
    """What was counted of one revision, over all its pools."""

    def __init__(self) -> None:
        self._errors = 0.0
        self._statuses: dict[int, float] = defaultdict(float)
        self._times: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.counted = False

    def add(self, name: str, labels: Mapping[str, str], value: float) -> None:
        base, _, part = name.rpartition("_")
        if name == _ERRORS:
            self._errors += value
        elif name == _REQUESTS:
            self._statuses[int(labels["code"])] += value
        elif base in _TIMES:
            self._times[_TIMES[base]][labels.get("le", part)] += value
        else:
            return
        self.counted = True

    def figures(self) -> TrafficFigures:
        return TrafficFigures(
            requests=sum(self._statuses.values()) + self._errors,
            errors=self._errors,
            statuses=dict(self._statuses),
            **{field: _times(samples) for field, samples in self._times.items()},
        )


def _times(samples: Mapping[str, float]) -> Times:
    bounds = samples.keys() - {"count", "sum", "created", "+Inf"}
    buckets = {float(bound): samples[bound] for bound in bounds}
    return Times(
        samples.get("count", 0.0), samples.get("sum", 0.0), tuple(sorted(buckets.items()))
    )


def gauge_in(text: str, name: str, endpoint: str) -> int:
    """Return the sum of a gauge over all revisions of an endpoint."""
    lines = (line for line in _LINE.finditer(text) if line["name"] == name)
    ours = (line for line in lines if dict(_LABEL.findall(line["labels"]))["endpoint"] == endpoint)
    return round(sum(float(line["value"]) for line in ours))


def _exchange(url: str, body: str | None = None, token: str = "") -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_SECONDS)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("POST" if body else "GET", parts.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(f"nothing answers at {url!r}: {error!r}") from error
    finally:
        connection.close()
