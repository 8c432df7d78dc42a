"""API keys: who is let in, for what, and how much a minute."""

from __future__ import annotations

import time
from dataclasses import replace

import httpx2 as httpx
import pytest

from orchestrator.core.endpoints.api_keys import ApiKey, Requirement
from orchestrator.serving.gateway.access_log import RequestRecord
from orchestrator.serving.gateway.charging import Estimate, estimate, used
from orchestrator.serving.gateway.gateway_metrics import Tally
from orchestrator.serving.gateway.rate_limiter import RateLimiter, allowed
from orchestrator.serving.gateway.routes import EndpointRoute, Table
from orchestrator.serving.http.api_errors import ApiError
from tests.fakes import FakeClock
from tests.serving.api_keys import FakeLedger, key, refused
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision


def table(*keys: ApiKey) -> Table:
    return Table(keys={one.digest: one for one in keys})


def test_where_nobody_said_anything_this_machine_alone_is_let_in() -> None:
    limiter = RateLimiter(FakeClock())
    assert limiter.identify(table(), "", "127.0.0.1") is None
    with pytest.raises(ApiError, match="keys require off") as error:
        limiter.identify(table(), "", "10.0.0.7")
    assert refused(error) == (401, "no_api_key")


def test_without_a_key_nobody_is_let_in_where_one_is_needed() -> None:
    limiter, closed = RateLimiter(FakeClock()), Table(required=Requirement.ON)
    for secret, code in (("", "no_api_key"), ("a", "invalid_api_key")):
        with pytest.raises(ApiError) as error:
            limiter.identify(closed, secret, "127.0.0.1")
        assert refused(error) == (401, code)


def test_where_no_key_is_needed_one_that_is_known_keeps_its_limits() -> None:
    limiter, mine = RateLimiter(FakeClock(100.0)), key()
    late = key("old", expires=1.0)
    opened = replace(table(mine, late), required=Requirement.OFF)
    found = [limiter.identify(opened, secret, "10.0.0.7") for secret in ("a", "", "x", "old")]
    assert found == [mine, None, None, None]


def test_nobody_has_no_limits() -> None:
    limiter = RateLimiter(FakeClock())
    limiter.settle(limiter.admit(None, Estimate(10**9)), 10**9)
    assert allowed(None, "any")


@pytest.mark.parametrize(
    ("secret", "code"),
    [("", "no_api_key"), ("b", "invalid_api_key"), ("old", "expired_api_key")],
)
def test_no_key_an_unknown_one_and_an_expired_one_are_refused(secret: str, code: str) -> None:
    limiter = RateLimiter(FakeClock(100.0))
    with pytest.raises(ApiError) as error:
        limiter.identify(table(key("a"), key("old", expires=100.0)), secret)
    assert refused(error) == (401, code)


def test_a_key_opens_until_it_expires() -> None:
    clock = FakeClock(0.0)
    limiter, mine = RateLimiter(clock), key(expires=10.0)
    assert limiter.identify(table(mine), "a") == mine
    clock.sleep(10.0)
    with pytest.raises(ApiError, match="is expired"):
        limiter.identify(table(mine), "a")


@pytest.mark.parametrize(
    "limits",
    [
        {"expires": float("nan")},
        {"tokens": 0},
        {"tokens": -5},
        {"requests": -5},
        {"requests": 0},
        {"parallel": 0},
        {"parallel": -1},
        {"budget": float("nan")},
        {"budget": -1.0},
        {"budget": 0.0},
    ],
)
def test_a_stored_key_that_is_nonsense_opens_nothing(limits: dict[str, float]) -> None:
    limiter, mine = RateLimiter(FakeClock(100.0)), key(**limits)
    with pytest.raises(ApiError) as error:
        limiter.admit(limiter.identify(table(mine), "a"))
    assert error.value.status in {401, 429}
    assert error.value.retry_after is None or error.value.retry_after > 0


def test_a_key_opens_its_models_alone() -> None:
    assert [allowed(key(models=("chat",)), model) for model in ("chat", "other")] == [True, False]


def test_requests_a_minute_refill_with_time() -> None:
    clock = FakeClock()
    limiter, mine = RateLimiter(clock), key(requests=2)
    limiter.admit(mine)
    limiter.admit(mine)
    with pytest.raises(ApiError, match="2 requests a minute") as error:
        limiter.admit(mine)
    assert (error.value.status, error.value.retry_after) == (429, 30)
    clock.sleep(30.0)
    limiter.admit(mine)


@pytest.mark.parametrize("set_by", [-3600.0, 3600.0])
def test_a_clock_that_is_set_fills_no_allowance_and_holds_none_back(set_by: float) -> None:
    clock = FakeClock(10_000.0)
    limiter, mine = RateLimiter(clock), key(requests=2)
    limiter.admit(mine)
    limiter.admit(mine)
    clock.step(set_by)
    with pytest.raises(ApiError, match="2 requests a minute"):
        limiter.admit(mine)
    clock.sleep(30.0)
    limiter.admit(mine)


def test_tokens_are_reserved_and_what_was_not_used_comes_back() -> None:
    clock = FakeClock()
    limiter, mine = RateLimiter(clock), key(tokens=60)
    first = limiter.admit(mine, Estimate(10, 40))
    with pytest.raises(ApiError, match="60 tokens a minute") as error:
        limiter.admit(mine, Estimate(10, 10))
    assert (error.value.status, error.value.retry_after) == (429, 10)
    limiter.settle(first, 15)
    limiter.admit(mine, Estimate(10, 35))
    with pytest.raises(ApiError):
        limiter.admit(mine, Estimate(1, 0))


def test_a_request_of_more_than_a_minute_s_worth_needs_a_full_minute_and_leaves_a_debt() -> None:
    clock = FakeClock()
    limiter, mine = RateLimiter(clock), key(tokens=60)
    limiter.settle(limiter.admit(mine, Estimate(100, 20)), 91)
    with pytest.raises(ApiError) as error:
        limiter.admit(mine, Estimate(1, 0))
    assert (error.value.status, error.value.retry_after) == (429, 32)
    clock.sleep(32.0)
    limiter.admit(mine, Estimate(1, 0))


def test_a_minutes_allowance_is_the_most_that_is_saved_also_by_what_comes_back() -> None:
    clock = FakeClock()
    limiter, mine = RateLimiter(clock), key(requests=1, tokens=50)
    early = limiter.admit(mine, Estimate(25, 25))
    clock.sleep(3600.0)
    limiter.settle(early, 0)
    limiter.admit(mine, Estimate(25, 25))
    clock.sleep(30.0)
    with pytest.raises(ApiError, match="50 tokens"):
        limiter.admit(mine, Estimate(25, 25))


def test_requests_that_are_refused_reserve_no_tokens() -> None:
    limiter, mine = RateLimiter(FakeClock()), key(requests=1, tokens=100)
    limiter.admit(mine, Estimate(10, 10))
    for _ in range(50):
        with pytest.raises(ApiError, match="1 requests a minute"):
            limiter.admit(mine, Estimate(10, 10))
    limiter.admit(replace(mine, requests=None), Estimate(40, 40))


def test_a_key_has_so_many_requests_in_flight_and_no_more() -> None:
    limiter, mine = RateLimiter(FakeClock()), key(parallel=2)
    grants = [limiter.admit(mine) for _ in range(2)]
    with pytest.raises(ApiError, match="2 requests in flight; 2 at most") as error:
        limiter.admit(mine)
    assert refused(error) == (429, "rate_limit_exceeded")
    limiter.settle(grants[0], 0)
    limiter.admit(mine)


def test_what_other_gateways_let_in_counts() -> None:
    ledger = FakeLedger()
    limiter, mine = RateLimiter(FakeClock(), ledger), key(requests=10, tokens=100)
    ledger.others = (3, 50)
    limiter.admit(mine, Estimate(1, 0))
    ledger.others = (9, 50)
    with pytest.raises(ApiError):
        limiter.admit(mine, Estimate(1, 0))


def test_two_secrets_open_a_rotated_key_for_a_while_with_one_allowance() -> None:
    clock = FakeClock(100.0)
    limiter = RateLimiter(clock)
    mine = key("old", requests=2).rotated(key("new").digest, until=160.0)
    both = Table(keys=dict.fromkeys(mine.digests, mine), required=Requirement.ON)
    for secret in ("old", "new"):
        limiter.admit(limiter.identify(both, secret))
    with pytest.raises(ApiError, match="2 requests a minute"):
        limiter.admit(limiter.identify(both, "new"))
    clock.sleep(60.0)
    assert limiter.identify(both, "new") == mine
    with pytest.raises(ApiError) as error:
        limiter.identify(both, "old")
    assert refused(error) == (401, "expired_api_key")


def test_a_key_that_is_gone_leaves_nothing_behind() -> None:
    limiter = RateLimiter(FakeClock())
    for number in range(1000):
        mine = replace(key(), name=f"n{number}", requests=5)
        limiter.settle(limiter.admit(limiter.identify(table(mine), "a")), 1)
    limiter.identify(table(key("b")), "b")
    assert (len(limiter._buckets), len(limiter._parallel)) == (0, 0)


@pytest.mark.parametrize(
    ("tally", "charged"),
    [
        (Tally(0.0, first=1.0, status=200, prompt_tokens=7, completion_tokens=9), (7, 9)),
        (Tally(0.0, first=1.0, status=499, prompt_tokens=7, completion_tokens=2), (7, 2)),
        (Tally(0.0, first=1.0, status=499, completion_tokens=2), (10, 2)),
        (Tally(0.0, first=1.0, status=0, completion_tokens=3), (10, 3)),
        (Tally(0.0, status=499), (10, 20)),
        (Tally(0.0, status=200, prompt_tokens=7, completion_tokens=9), (7, 9)),
        (Tally(0.0, status=200), (10, 20)),
        (Tally(0.0, status=400), (0, 0)),
        (Tally(0.0), (0, 0)),
    ],
)
def test_what_was_begun_is_charged_whoever_ends_it(tally: Tally, charged: tuple[int, int]) -> None:
    assert used(tally, Estimate(10, 20)) == Estimate(*charged)


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        ("/v1/completions", (5, 14)),
        ("/v1/chat/completions?a=b", (5, 14)),
        ("/v1/embeddings", (5, 0)),
        ("/v1/score", (5, 0)),
        ("/rerank", (5, 0)),
        ("/tokenize", (0, 0)),
        ("/v1/predict", (0, 0)),
        ("/v1/audio/transcriptions", (0, 0)),
    ],
)
def test_a_request_reserves_what_its_path_makes_and_reads(
    path: str, reserved: tuple[int, int]
) -> None:
    assert estimate(path, b"a" * 20, 2, 7) == Estimate(*reserved)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_again_and_again_is_stopped_by_its_limit(*, stream: bool) -> None:
    body = {"model": "echo", "prompt": "word " * 100, "max_tokens": 100, "stream": stream}
    mine = key("a", tokens=1000)
    with echoing(echo_engine(delay=0.05)) as urls:
        route = EndpointRoute(name="echo", revisions=(revision("r1", *urls),))
        with gateway_of(Board(route, keys={mine.digest: mine})) as url:
            statuses = []
            headers = {"Authorization": "Bearer a"}
            for _ in range(20):
                with httpx.Client(base_url=url, headers=headers, timeout=0.4) as client:
                    try:
                        with client.stream("POST", "/v1/completions", json=body) as answer:
                            statuses.append(answer.status_code)
                            next(answer.iter_lines())
                    except httpx.TimeoutException:
                        statuses.append(0)
            assert statuses[-5:] == [429] * 5, statuses
            assert sum(status != 429 for status in statuses) <= 1000 / 125


def test_a_stream_that_is_left_is_charged_its_prompt_and_what_was_streamed() -> None:
    body = {"model": "echo", "prompt": "a" * 40, "max_tokens": 400, "stream": True}
    records: list[RequestRecord] = []
    mine = key("a", tokens=1000)
    with echoing(echo_engine(delay=0.02)) as urls:
        route = EndpointRoute(name="echo", revisions=(revision("r1", *urls),))
        with gateway_of(Board(route, keys={mine.digest: mine}), record=records.append) as url:
            where, headers = f"{url}/v1/completions", {"Authorization": "Bearer a"}
            with httpx.stream("POST", where, json=body, headers=headers) as answer:
                lines = answer.iter_lines()
                for _ in range(10):
                    next(lines)
            until = time.monotonic() + 10
            while not records and time.monotonic() < until:
                time.sleep(0.01)  # noqa: TID251 - a server in another thread needs real time
            (record,) = records
            assert record.prompt_tokens == 40
            assert 5 <= record.completion_tokens < 400
            whole = {**body, "stream": False, "prompt": "a", "max_tokens": 500}
            assert httpx.post(where, json=whole, headers=headers).is_success


def test_anthropic_s_header_is_the_key_for_anthropic_s_path_alone() -> None:
    mine = key("a")
    with echoing(echo_engine()) as urls:
        route = EndpointRoute(name="echo", revisions=(revision("r1", *urls),))
        with gateway_of(Board(route, keys={mine.digest: mine})) as url:
            body = {"model": "echo", "max_tokens": 4, "messages": []}
            for path, shown, is_refused in (
                ("/v1/messages", "a", False),
                ("/v1/messages", "b", True),
                ("/v1/chat/completions", "a", True),
            ):
                answer = httpx.post(f"{url}{path}", json=body, headers={"x-api-key": shown})
                assert (answer.status_code == 401) is is_refused, answer.text


def test_a_proxy_hides_where_a_client_is_and_then_a_key_is_needed() -> None:
    with echoing(echo_engine()) as urls:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))
        with gateway_of(board) as url:
            body = {"model": "echo", "prompt": "a"}
            for headers, status in (({}, 200), ({"x-forwarded-for": "9.9.9.9"}, 401)):
                answer = httpx.post(f"{url}/v1/completions", json=body, headers=headers)
                assert answer.status_code == status


def test_clients_are_refused_in_openai_s_shape_and_see_only_their_models() -> None:
    keys = (key("a", models=("echo",)), key("b", models=("no",)), key("c", requests=1))
    with echoing(echo_engine()) as urls:
        routes = tuple(
            EndpointRoute(name=name, revisions=(revision("r1", *urls, model="echo"),))
            for name in ("echo", "more")
        )
        board = Board(*routes, keys={one.digest: one for one in keys})
        with gateway_of(board) as url, httpx.Client(base_url=url) as client:

            def ask(secret: str | None, model: str = "echo") -> tuple[int, str]:
                headers = {"Authorization": f"Bearer {secret}"} if secret else {}
                body = {"model": model, "prompt": "a"}
                answer = client.post("/v1/completions", json=body, headers=headers)
                error = answer.json().get("error", {})
                return answer.status_code, str(error.get("code", ""))

            assert ask(None) == (401, "no_api_key")
            assert ask("x") == (401, "invalid_api_key")
            assert ask("a") == (200, "")
            assert ask("b") == (404, "model_not_found") == ask("b", "nowhere")
            assert [ask("c")[0], ask("c")[0]] == [200, 429]
            mine = client.get("/v1/models", headers={"Authorization": "Bearer a"}).json()
            assert [card["id"] for card in mine["data"]] == ["echo"]
            assert client.get("/v1/models").status_code == 401
