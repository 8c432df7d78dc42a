"""A budget in US dollars: what is spent, and what answers in flight may still cost."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import httpx2 as httpx
import pytest

from orchestrator.serving.gateway.charging import Prices
from orchestrator.serving.gateway.gateway_metrics import Tally
from orchestrator.serving.gateway.rate_limiter import RateLimiter
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.fakes import FakeClock
from tests.serving.api_keys import FakeLedger, key, refused
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision


def test_a_budget_that_is_spent_ends_a_key_for_the_month() -> None:
    ledger = FakeLedger(4.99)
    limiter, mine = RateLimiter(FakeClock(), ledger), key(budget=5.0)
    limiter.admit(mine)
    ledger.dollars = 5.0
    with pytest.raises(ApiError, match="budget of 5 US dollars") as error:
        limiter.admit(mine)
    assert refused(error) == (429, "insufficient_quota")


def test_what_is_in_flight_may_not_cost_more_than_is_left_of_a_budget() -> None:
    limiter, mine = RateLimiter(FakeClock(), FakeLedger(4.0)), key(budget=5.0)
    grants = [limiter.admit(mine, cost=0.4) for _ in range(2)]
    with pytest.raises(ApiError, match="in flight may cost all that is left") as error:
        limiter.admit(mine, cost=0.4)
    assert refused(error) == (429, "rate_limit_exceeded")
    limiter.admit(mine, cost=0.2)
    limiter.settle(grants[0], 0)
    limiter.admit(mine, cost=0.4)


def test_one_alone_is_let_in_though_it_may_cost_more_than_is_left() -> None:
    limiter, mine = RateLimiter(FakeClock(), FakeLedger(4.9)), key(budget=5.0)
    for _ in range(3):
        grant = limiter.admit(mine, cost=20.0)
        with pytest.raises(ApiError):
            limiter.admit(mine, cost=0.01)
        limiter.settle(grant, 0)


def test_what_costs_nothing_is_in_nobodys_way() -> None:
    limiter, mine = RateLimiter(FakeClock(), FakeLedger(4.9)), key(budget=5.0)
    free = [limiter.admit(mine) for _ in range(100)]
    limiter.admit(mine, cost=0.1)
    with pytest.raises(ApiError, match="in flight may cost all that is left"):
        limiter.admit(mine, cost=0.01)
    for grant in free:
        limiter.settle(grant, 0)
    with pytest.raises(ApiError, match="in flight may cost all that is left"):
        limiter.admit(mine, cost=0.01)


PRICED = replace(revision("r1", "a"), hourly=36.0, concurrency=10)  # 0.001 dollars a slot second
CHAT = EndpointRoute(name="chat", revisions=(PRICED,))


def test_an_answer_may_cost_its_tokens_at_the_pace_of_late_and_at_most_the_longest_time() -> None:
    prices = Prices(900.0)
    assert prices.most(CHAT, 2, 100) == pytest.approx(1.8), "nothing is known yet"
    for seconds, size in ((5.0, 2), (1.0, 1)):
        tally = Tally(0.0, sent=10.0, last=10.0 + seconds, status=200, size=size)
        prices.add("chat", replace(tally, completion_tokens=int(50 * seconds * size)))
    assert prices.most(CHAT, 2, 100) == pytest.approx(0.004)
    assert prices.most(CHAT, 1, None) == pytest.approx(0.9), "as long as it likes"
    assert prices.most(CHAT, 1, 1 << 20) == pytest.approx(0.9)
    assert prices.most(EndpointRoute(name="chat", revisions=()), 1, 9) == 0.0
    prices.add("chat", Tally(0.0, sent=1.0, last=1000.0, status=500))
    assert prices.most(CHAT, 1, 100) == pytest.approx(0.002), "a refusal teaches nothing"


def test_what_makes_no_tokens_costs_what_it_cost_so_far() -> None:
    prices = Prices(900.0)
    for seconds in (0.2, 0.4):
        prices.add("chat", Tally(0.0, sent=1.0, last=1.0 + seconds, status=200))
    assert prices.most(CHAT, 1, None) == pytest.approx(0.001 * 0.3, rel=0.02)


def test_streams_at_once_do_not_overdraw_a_budget_together() -> None:
    """Of ten that begin while a cent is left, those go on that a cent may pay for."""
    mine, headers = key("a", budget=0.01), {"Authorization": "Bearer a"}
    body = {"model": "echo", "prompt": "word " * 20, "max_tokens": 100, "stream": True}
    with echoing(echo_engine(delay=0.02)) as urls, ExitStack() as streams:
        route = EndpointRoute(name="echo", revisions=(replace(PRICED, urls=tuple(urls)),))
        limits = GatewayLimits(request_seconds=4.0)  # 0.004 dollars each
        with gateway_of(Board(route, keys={mine.digest: mine}), limits=limits) as url:
            client = streams.enter_context(httpx.Client(base_url=url, headers=headers))
            asked = [client.stream("POST", "/v1/completions", json=body) for _ in range(10)]
            statuses = [streams.enter_context(one).status_code for one in asked]
    assert sorted(statuses) == [200] * 2 + [429] * 8
