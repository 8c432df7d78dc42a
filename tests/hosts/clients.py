"""Clients of endpoints on hosts: they ask all the time, and tell what became of that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.adapters.gateway_client import GatewayTraffic
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import Host, Process
from tests.hosts.site import Site

# It asks the gateways in turn, until it is ended; a line tells of each answer: how long it is, and
# whose weights gave it.
CLIENT = """\
import json, os, sys, time, urllib.request
question = {"model": sys.argv[1], "max_tokens": 2, "messages": [{"role": "user", "content": "1"}]}
headers = {
    "Content-Type": "application/json",
    "Authorization": "Bearer " + os.environ["ORCHESTRATOR_API_KEY"],
}
while True:
    for gateway in sys.argv[2:]:
        time.sleep(0.1)
        url = gateway + "/v1/chat/completions"
        asked = urllib.request.Request(url, json.dumps(question).encode(), headers)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                said = json.load(answer)
            tokens, weights = said["usage"]["completion_tokens"], said["system_fingerprint"]
            print("answered", tokens, weights, flush=True)
        except OSError as error:
            print("failed", url, error, flush=True)
"""


@dataclass
class Client:
    """Somebody who asks an endpoint all the time."""

    process: Process

    def answered(self) -> int:
        """Return how many answers have come."""
        return self.process.printed().count("answered ")

    def until_answered(self, more: int) -> None:
        """Wait for so many answers more."""
        wanted = self.answered() + more
        assert wait(lambda: self.answered() >= wanted, 120.0, tick=0.1), self.process.printed()

    def models(self) -> set[str]:
        """Return the models that have answered, by their digests: weights are `r1-DIGEST`."""
        lines = self.process.printed().splitlines()
        return {line.rpartition("-")[2] for line in lines if line.startswith("answered ")}

    def failed(self) -> list[str]:
        """Return what was not answered."""
        lines = self.process.printed().splitlines()
        return [line for line in lines if not line.startswith("answered ")]


@contextmanager
def asking(host: Host, endpoint: str, key: str, *gateways: str) -> Iterator[Client]:
    """Have a client on a host ask an endpoint all the time; it has had an answer."""
    argv = (sys.executable, "-c", CLIENT, endpoint, *gateways)
    name = f"client-{len(host.started)}"
    client = Client(host.start(*argv, name=name, ORCHESTRATOR_API_KEY=key))
    try:
        client.until_answered(1)
        yield client
    finally:
        client.process.stop()


def new_key(site: Site, host: Host) -> str:
    """Return a new key of the gateways: who asks from another host needs one."""
    return site.do(host, "keys", "add", f"key-{len(site.store.api_keys())}").strip()


def ask_once(site: Site, host: Host, endpoint: str, key: str) -> None:
    """Ask an endpoint that nobody has asked yet, and wait until its gateway has counted that."""
    site.do(host, "ask", "17 + 25 =", ORCHESTRATOR_API_KEY=key)
    traffic = GatewayTraffic(site.store)

    def counted() -> dict[str, float]:
        return {revision: seen.requests for revision, seen in traffic.figures(endpoint).items()}

    assert wait(lambda: counted() == {"r1": 1}, 30.0, tick=0.2), counted()
