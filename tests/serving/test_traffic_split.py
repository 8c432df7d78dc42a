"""Which revision a request goes to."""

from __future__ import annotations

from collections import Counter
from random import Random

from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.gateway.traffic_split import choose
from tests.serving.http_server import revision


def route(**shares: int) -> EndpointRoute:
    revisions = tuple(revision(name, share=share) for name, share in shares.items())
    return EndpointRoute(name="e", revisions=revisions)


def chosen(endpoint: EndpointRoute, client: str = "", seed: int = 0) -> str:
    found = choose(endpoint, client, Random(seed))  # noqa: S311 - no secret
    assert found is not None
    return found.name


def test_nothing_takes_traffic_without_a_share() -> None:
    assert choose(route(r1=0, r2=0), "", Random(0)) is None  # noqa: S311
    assert {chosen(route(r1=0, r2=1), seed=seed) for seed in range(50)} == {"r2"}
    assert {chosen(route(r1=0, r2=1, r3=1), f"c{n}") for n in range(50)} == {"r2", "r3"}


def test_chance_follows_the_shares_and_the_seed() -> None:
    both = route(r1=90, r2=10)
    names = [chosen(both, seed=seed) for seed in range(2000)]
    assert 140 <= names.count("r2") <= 260
    assert names == [chosen(both, seed=seed) for seed in range(2000)]


def test_clients_follow_the_shares_and_stay() -> None:
    both = route(r1=75, r2=25)
    names = Counter(chosen(both, f"client-{n}", seed=n) for n in range(2000))
    assert 420 <= names["r2"] <= 580
    assert len({chosen(both, "one", seed=seed) for seed in range(50)}) == 1


def test_a_change_of_shares_moves_no_client_that_need_not_move() -> None:
    clients = [f"client-{n}" for n in range(2000)]
    before = {client: chosen(route(r1=95, r2=5), client) for client in clients}
    after = {client: chosen(route(r1=75, r2=25), client) for client in clients}
    moved = [client for client in clients if before[client] != after[client]]
    assert all(after[client] == "r2" for client in moved)
    assert 300 <= len(moved) <= 500
