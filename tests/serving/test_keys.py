"""API keys: who is let in, for what, and how much a minute."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import httpx2 as httpx
import pytest

from orchestrator.core.keys import ApiKey, Requirement
from orchestrator.serving.errors import ApiError
from orchestrator.serving.keys import RateLimiter, allowed
from orchestrator.serving.routes import EndpointRoute, Table
from tests.fakes import FakeClock
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision


def key(of: str = "a", **more: object) -> ApiKey:
    return ApiKey(name=f"{of}'s", digest=sha256(of.encode()).hexdigest(), **more)  # type: ignore[arg-type]


def table(*keys: ApiKey) -> Table:
    return Table(keys={one.digest: one for one in keys})


def refused(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str | None]:
    return error.value.status, error.value.code


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
    limiter.admit(None, "any")
    limiter.charge(None, 10**9)
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
    "limits", [{"expires": float("nan")}, {"tokens": 0}, {"tokens": -5}, {"requests": -5}]
)
def test_a_stored_key_that_is_nonsense_opens_nothing(limits: dict[str, float]) -> None:
    limiter, mine = RateLimiter(FakeClock(100.0)), key(**limits)
    with pytest.raises(ApiError) as error:
        limiter.admit(limiter.identify(table(mine), "a"), "chat")
    assert refused(error) in {(401, "expired_api_key"), (429, "rate_limit_exceeded")}
    assert error.value.retry_after is None or error.value.retry_after > 0


def test_a_key_opens_its_models_alone() -> None:
    limiter, mine = RateLimiter(FakeClock()), key(models=("chat",))
    limiter.admit(mine, "chat")
    with pytest.raises(ApiError) as error:
        limiter.admit(mine, "other")
    assert refused(error) == (403, "model_not_allowed")


def test_requests_a_minute_refill_with_time() -> None:
    clock = FakeClock()
    limiter, mine = RateLimiter(clock), key(requests=2)
    limiter.admit(mine, "m")
    limiter.admit(mine, "m")
    with pytest.raises(ApiError, match="2 requests a minute") as error:
        limiter.admit(mine, "m")
    assert (error.value.status, error.value.retry_after) == (429, 30)
    clock.sleep(30.0)
    limiter.admit(mine, "m")


def test_tokens_are_charged_after_the_answer_and_a_debt_must_be_paid() -> None:
    clock = FakeClock()
    limiter, mine = RateLimiter(clock), key(tokens=60)
    limiter.admit(mine, "m")
    limiter.charge(mine, 90)
    with pytest.raises(ApiError) as error:
        limiter.admit(mine, "m")
    assert (error.value.status, error.value.retry_after) == (429, 31)
    clock.sleep(31.0)
    limiter.admit(mine, "m")


def test_a_minutes_allowance_is_the_most_that_is_saved() -> None:
    clock = FakeClock()
    limiter, mine = RateLimiter(clock), key(requests=1)
    clock.sleep(3600.0)
    limiter.admit(mine, "m")
    with pytest.raises(ApiError):
        limiter.admit(mine, "m")


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
            assert ask("b") == (403, "model_not_allowed")
            assert [ask("c")[0], ask("c")[0]] == [200, 429]
            mine = client.get("/v1/models", headers={"Authorization": "Bearer a"}).json()
            assert [card["id"] for card in mine["data"]] == ["echo"]
            assert client.get("/v1/models").status_code == 401
            assert client.get("/metrics").status_code == 200
            assert client.get("/metrics", headers={"x-forwarded-for": "x"}).status_code == 401
