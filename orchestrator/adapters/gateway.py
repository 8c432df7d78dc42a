"""The gateway as seen from the control plane: its figures, and questions to it and past it."""

from __future__ import annotations

import http.client
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from orchestrator.core.errors import ServingError
from orchestrator.core.rollout import NOTHING, Figures

_SECONDS = 10.0
_TOKENS = 16
_LINE = re.compile(r"(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FIELDS = {
    "orchestrator_requests_total": "requests",
    "orchestrator_errors_total": "errors",
    "orchestrator_time_to_first_token_seconds_sum": "first",
    "orchestrator_time_to_first_token_seconds_count": "firsts",
    "orchestrator_time_per_output_token_seconds_sum": "each",
    "orchestrator_time_per_output_token_seconds_count": "eachs",
}


class GatewayTraffic:
    """The port `Traffic`, on the gateway at `address` (`http://HOST:PORT`)."""

    def __init__(self, address: str) -> None:
        self._address = address

    def figures(self, endpoint: str) -> Mapping[str, Figures]:
        """Return what the gateway has counted, by name of the revision (`r3`).

        Raises:
            ServingError: It does not answer.
        """
        return figures_in(_ask(f"{self._address}/metrics"), endpoint)

    def waiting(self, endpoint: str) -> int:
        """Return how many requests wait for room at a replica.

        Raises:
            ServingError: The gateway does not answer.
        """
        return gauge_in(_ask(f"{self._address}/metrics"), "orchestrator_queue", endpoint)

    def answers(self, endpoint: str) -> bool:
        """Whether the gateway knows a replica for the endpoint."""
        try:
            text = _ask(f"{self._address}/metrics")
        except ServingError:
            return False
        return gauge_in(text, "orchestrator_replicas", endpoint) > 0

    def probe(self, url: str, token: str, model: str, prompt: str) -> str:
        """Return the greedy answer of the replica at `url`, asked directly.

        Raises:
            ServingError: It answers by an error, or not at all.
        """
        body = {"model": model, "prompt": prompt, "max_tokens": _TOKENS, "temperature": 0}
        said = json.loads(_ask(f"{url}/v1/completions", json.dumps(body), token))
        return str(said["choices"][0]["text"])


def figures_in(text: str, endpoint: str) -> Mapping[str, Figures]:
    """Return the figures of an endpoint in metrics as Prometheus writes them, by revision.

    The gateway counts what a revision answered and what its replicas failed to: together those
    are the requests that it was given.
    """
    found: dict[str, Figures] = defaultdict(lambda: NOTHING)
    for line in _LINE.finditer(text):
        field = _FIELDS.get(line["name"])
        labels = dict(_LABEL.findall(line["labels"]))
        if field and labels.get("endpoint") == endpoint:
            before = found[labels["revision"]]
            sum_ = getattr(before, field) + float(line["value"])
            found[labels["revision"]] = replace(before, **{field: sum_})
    return {name: replace(one, requests=one.requests + one.errors) for name, one in found.items()}


def gauge_in(text: str, name: str, endpoint: str) -> int:
    """Return the sum of a gauge over all revisions of an endpoint."""
    lines = (line for line in _LINE.finditer(text) if line["name"] == name)
    ours = (one for one in lines if dict(_LABEL.findall(one["labels"]))["endpoint"] == endpoint)
    return round(sum(float(one["value"]) for one in ours))


def _ask(url: str, body: str | None = None, token: str = "") -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_SECONDS)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("POST" if body else "GET", parts.path, body, headers)
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(f"nothing answers at {url!r}: {error!r}") from error
    finally:
        connection.close()
    if answer.status >= http.client.BAD_REQUEST:
        raise ServingError(f"{url!r} answers {answer.status}: {said[:200]!r}")
    return said
