"""Gateways tell the database where they are and what they have counted; all read the sum."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import update

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.schema import gateway_counts, gateways
from orchestrator.adapters.gateway_client import GatewayTraffic
from orchestrator.core.endpoints.gateway_entry import SILENT_SECONDS, Gateway
from orchestrator.core.errors import ServingError
from orchestrator.serving.gateway.reporting import Reporter
from tests.serving.http_server import FixedClock

REQUESTS = 'orchestrator_requests_total{endpoint="chat",revision="r1",pool="a",code="200"} '
WAITING = 'orchestrator_requests_waiting{endpoint="chat"} '
THERE = 'orchestrator_replicas{endpoint="chat",revision="r1",pool="a"} '


@pytest.fixture
def store(url: str) -> Iterator[SqlDatabase]:
    opened = SqlDatabase(url)
    yield opened
    opened.close()


def gateway(name: str, url: str = "http://10.0.0.1:8000", host: str = "h0") -> Gateway:
    return Gateway(name=name, url=url, host=host, pid=7, cluster="10.0.0.1:6379")


def silence(store: SqlDatabase, name: str, seconds: float) -> None:
    later = {"seen": gateways.c.seen - seconds}
    with store._writing() as connection:
        connection.execute(update(gateways).where(gateways.c.name == name).values(later))


def counted(requests: int, waiting: int = 0, replicas: int = 1) -> dict[str, str]:
    return {"chat": f"{REQUESTS}{requests}\n{WAITING}{waiting}\n{THERE}{replicas}\n"}


def test_a_gateway_is_live_until_it_is_silent_or_has_ended(store: SqlDatabase) -> None:
    store.note_gateway(gateway("a"))
    store.note_gateway(gateway("b", host="h1"))
    (first, second) = store.gateways()
    assert (first.name, first.host, first.pid, first.live, second.name) == (
        "a",
        "h0",
        7,
        True,
        "b",
    )
    assert 0 <= first.silent < SILENT_SECONDS
    silence(store, "a", SILENT_SECONDS + 1)
    assert [one.live for one in store.gateways()] == [False, True]
    store.note_gateway(gateway("a"))
    store.drop_gateway("b")
    assert [(one.name, one.live) for one in store.gateways()] == [("a", True)]


def test_the_counts_of_all_gateways_are_summed_those_of_ended_ones_too(
    store: SqlDatabase,
) -> None:
    traffic = GatewayTraffic(store)
    for name in ("a", "b"):
        store.note_gateway(gateway(name))
    store.note_counts("a", counted(5, waiting=2))
    store.note_counts("b", counted(7, waiting=1))
    assert traffic.figures("chat")["r1"].requests == 12.0
    assert traffic.waiting("chat") == 3
    assert traffic.figures("other") == {}
    store.drop_gateway("a")
    assert traffic.figures("chat")["r1"].requests == 12.0, "a sum that shrinks misleads a rollout"
    assert traffic.waiting("chat") == 1


def test_an_endpoint_is_answered_once_every_live_gateway_knows_a_replica(
    store: SqlDatabase,
) -> None:
    traffic = GatewayTraffic(store)
    assert not traffic.answers("chat")
    for name in ("a", "b"):
        store.note_gateway(gateway(name))
    store.note_counts("a", counted(0))
    assert not traffic.answers("chat")
    store.note_counts("b", counted(0))
    assert traffic.answers("chat")
    silence(store, "b", SILENT_SECONDS + 1)
    store.note_counts("b", counted(0, replicas=0))
    assert traffic.answers("chat"), "one that is gone keeps nobody waiting"


def test_without_a_gateway_there_are_no_figures(store: SqlDatabase) -> None:
    with pytest.raises(ServingError, match="no gateway runs; `orchestrator up` starts one"):
        GatewayTraffic(store).figures("chat")


def test_counts_are_forgotten_a_day_after_they_were_written(store: SqlDatabase) -> None:
    store.note_counts("old", counted(1))
    with store._writing() as connection:
        connection.execute(update(gateway_counts).values(at=gateway_counts.c.at - 90_000))
    store.note_counts("new", counted(2))
    store.drop_gateway("whoever")
    assert list(store.counts("chat")) == ["new"]


def test_a_reporter_writes_what_has_changed_and_says_goodbye(store: SqlDatabase) -> None:
    told = counted(1)
    reporter = Reporter(store, gateway("a"), lambda: told, FixedClock())
    assert [one.name for one in store.gateways()] == ["a"]
    reporter.report()
    assert store.counts("chat") == {"a": told["chat"]}
    told = counted(2)
    reporter.close()
    assert store.counts("chat") == {"a": told["chat"]}
    assert list(store.gateways()) == []


@pytest.mark.parametrize(
    ("url", "host", "reachable"),
    [
        ("http://127.0.0.1:8000", "h0", True),
        ("http://127.0.0.1:8000", "h1", False),
        ("http://10.0.0.1:8000", "h1", True),
        ("https://[::1]:8000", "h1", False),
        ("http://localhost:8000", "h1", False),
        ("http://127.0.1.1:8000", "h1", False),
    ],
)
def test_a_gateway_on_loopback_can_be_asked_on_its_own_host_alone(
    url: str, host: str, *, reachable: bool
) -> None:
    assert gateway("a", url).reachable(host) is reachable
