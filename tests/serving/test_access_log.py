"""One line of JSON a request, with its id and its times, and no word of what was said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from orchestrator.serving.gateway.access_log import AccessLog, RequestRecord
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.supervisor.record import wait
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "what nobody else may read"  # noqa: S105 - a prompt
SECONDS = 5.0


@pytest.fixture(scope="module")
def log() -> list[RequestRecord]:
    return []


@pytest.fixture(scope="module")
def url(log: list[RequestRecord]) -> Iterator[str]:
    with echoing(echo_engine()) as urls:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))
        with gateway_of(board, record=log.append) as url:
            yield url


def test_every_answer_has_an_id_the_clients_own_where_it_sent_one(
    url: str, log: list[RequestRecord]
) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "hi"}]
        )
        assert answer._request_id
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve("nothing")
        assert refused.value.request_id
    mine = httpx.get(f"{url}/health", headers={"x-request-id": "mine-1"})
    assert mine.headers["x-request-id"] == "mine-1"
    bad = httpx.get(f"{url}/health", headers={"x-request-id": "a b"})
    assert bad.headers["x-request-id"] not in {"", "a b"}
    assert wait(lambda: {"mine-1", answer._request_id} <= {r.request_id for r in log}, SECONDS)


def test_a_record_says_what_a_request_came_to_and_nothing_of_what_was_said(
    url: str, log: list[RequestRecord]
) -> None:
    headers = {"x-request-id": "one", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    body = {"model": "echo", "prompt": SECRET, "stream": True, "max_tokens": 99}
    httpx.post(f"{url}/v1/completions", json=body, headers=headers)
    httpx.post(f"{url}/v1/completions", json={"model": "no"}, headers={"x-request-id": "two"})
    assert wait(lambda: {"one", "two"} <= {r.request_id for r in log}, SECONDS)
    records = {record.request_id: record for record in log}
    one, two = records["one"], records["two"]
    assert (one.status, one.endpoint, one.revision, one.trace_id) == (200, "echo", "r1", TRACE)
    assert (one.prompt_tokens, one.completion_tokens) == (len(SECRET), len(SECRET))
    assert one.first_token_s is not None
    assert 0 < one.first_token_s <= one.duration_s
    assert (two.status, two.endpoint, two.first_token_s) == (404, "", None)
    assert SECRET not in one.line()
    assert json.loads(one.line())["path"] == "/v1/completions"


def record(name: str) -> RequestRecord:
    return RequestRecord(
        at=1_700_000_000.5,
        request_id=name,
        client="10.0.0.1",
        method="GET",
        path="/health",
        status=200,
        duration_s=0.25,
    )


def test_lines_go_to_a_file_of_their_own_which_may_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.jsonl"
    log = AccessLog(str(path))
    log.add(record("one"))
    assert wait(path.exists, SECONDS)
    assert wait(lambda: bool(path.read_text()), SECONDS)
    path.rename(tmp_path / "moved")
    log.add(record("two"))
    log.close()
    lines = [json.loads(file.read_text()) for file in (tmp_path / "moved", path)]
    assert [line["request_id"] for line in lines] == ["one", "two"]
    assert lines[0]["at"] == "2023-11-14T22:13:20.500+00:00"
    assert path.stat().st_mode & 0o077 == 0


def test_a_log_that_can_t_be_written_is_told_once_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    log = AccessLog(str(tmp_path / "file" / "access.jsonl"))
    for name in ("one", "two"):
        log.add(record(name))
    log.close()
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 1
    assert told[0].startswith("the access log can't be written: ")
