"""The gateway's metrics in Prometheus' conventions, which Prometheus' own tool judges."""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from random import Random

import httpx2 as httpx
import pytest

from orchestrator.core.endpoints.api_keys import ApiKey, Requirement
from orchestrator.serving.gateway import gateway_metrics as module
from orchestrator.serving.gateway.app import gateway
from orchestrator.serving.gateway.event_stream import EventStream, reasons_in
from orchestrator.serving.gateway.gateway_metrics import Metrics, Tally
from orchestrator.serving.gateway.key_metrics import KeyMetrics
from orchestrator.serving.gateway.routes import EndpointRoute, Table
from orchestrator.serving.gateway.slots import Slots
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.serving.http_server import (
    Board,
    FixedClock,
    echo_engine,
    echoing,
    gateway_of,
    revision,
    serving,
)

ALICE = ApiKey(name="alice", digest=sha256(b"sk-alice").hexdigest())
PROMPT = {"model": "echo", "prompt": "abcd"}


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's prometheus")
def test_promtool_finds_nothing_to_mend_in_the_live_text() -> None:
    with (
        echoing(echo_engine()) as urls,
        gateway_of(Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))) as url,
    ):
        for body in (PROMPT, {**PROMPT, "stream": True}, {**PROMPT, "model": "no"}, {}):
            httpx.post(f"{url}/v1/completions", json=body)
        text = httpx.get(f"{url}/metrics").content
    assert b"gen_ai_server_request_duration_seconds_bucket" in text
    for code in (b"404", b"400"):  # no such model, and none at all
        asked = b'orchestrator_key_requests_total{code="%s",endpoint="",key=""} 1.0'
        assert asked % code in text
    done = subprocess.run(
        [str(shutil.which("promtool")), "check", "metrics"],
        input=text,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_no_series_says_when_it_was_made_and_shares_are_ratios() -> None:
    half = revision("r1", "http://a", share=50)
    board = Board(EndpointRoute(name="echo", revisions=(half,)))
    metrics = Metrics(board)
    metrics.watch(Slots(board, GatewayLimits(), Random(0)))  # noqa: S311 - no secret
    metrics.answered("echo", half, Tally(0.0, last=1.0, status=200))
    text = metrics.text()
    assert b"_created" not in text
    share = b'orchestrator_traffic_share_ratio{endpoint="echo",pool="pool-r1",revision="r1"} 0.5\n'
    assert share in text


def test_who_asks_where_clients_do_finds_no_figures() -> None:
    with serving(gateway(Board(), FixedClock())) as url:
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/metrics").status_code == 404


def test_a_revision_that_has_left_is_told_for_a_while_and_then_no_more() -> None:
    now = 1000.0
    old, new = revision("r1", "http://a"), revision("r2", "http://b")
    board = Board(EndpointRoute(name="echo", revisions=(old, new)))
    metrics = Metrics(board, lambda: now)
    for one in (old, new):
        metrics.answered("echo", one, Tally(0.0, last=1.0, status=200, prompt_tokens=3))
        metrics.failed("echo", one, "lost")
    board.put(EndpointRoute(name="echo", revisions=(new,)))
    assert 'revision="r1"' in metrics.by_endpoint()["echo"]
    now += module._SECONDS_KEPT + 1
    left = metrics.by_endpoint()["echo"]
    assert 'revision="r1"' not in left
    assert 'revision="r2"' in left


def test_what_is_told_of_an_endpoint_is_its_own_series_with_their_labels_escaped() -> None:
    odd = revision('r"1\\', "http://a")
    metrics = Metrics(Board())
    metrics.answered("one", odd, Tally(0.0, last=1.0, status=200))
    metrics.refused("two", 400)
    told = metrics.by_endpoint()
    assert set(told) == {"one", "two"}
    assert r'revision="r\"1\\"' in told["one"]
    assert told["two"] == 'orchestrator_refused_total{endpoint="two",code="400"} 1.0\n'


def test_answers_are_told_by_why_they_ended_and_requests_by_the_name_of_their_key() -> None:
    keys = {ALICE.digest: ALICE}
    with echoing(echo_engine()) as urls:
        route = EndpointRoute(name="echo", revisions=(revision("r1", *urls),))
        with gateway_of(Board(route, keys=keys, required=Requirement.ON)) as url:
            httpx.post(f"{url}/v1/completions", json=PROMPT)
            for body in (
                {**PROMPT, "n": 2},
                {**PROMPT, "n": 2, "stream": True},
                {**PROMPT, "max_tokens": 1},
                {**PROMPT, "n": -1},
            ):
                header = {"authorization": "Bearer sk-alice"}
                httpx.post(f"{url}/v1/completions", json=body, headers=header)
            lines = httpx.get(f"{url}/metrics").text.splitlines()
    assert not any("sk-alice" in line or ALICE.digest in line for line in lines)
    told = {line for line in lines if "finished_choices_total{" in line or "_key_" in line}
    told = {line for line in told if not line.startswith("#") and not line.endswith(" 0.0")}
    told = {line for line in told if "queue" not in line}
    ends = 'orchestrator_finished_choices_total{endpoint="echo",finish_reason='
    where = ',pool="pool-r1",revision="r1"} '
    asked = "orchestrator_key_requests_total{code="
    used = 'orchestrator_key_tokens_total{endpoint="echo",gen_ai_token_type='
    assert told == {
        f'{ends}"stop"{where}4.0',
        f'{ends}"length"{where}1.0',
        f'{asked}"401",endpoint="",key=""}} 1.0',
        f'{asked}"200",endpoint="echo",key="alice"}} 3.0',
        f'{asked}"400",endpoint="echo",key="alice"}} 1.0',
        f'{used}"input",key="alice"}} 12.0',
        f'{used}"output",key="alice"}} 17.0',
    }


def test_keys_that_are_revoked_and_endpoints_that_are_gone_leave_no_series() -> None:
    keys = KeyMetrics()
    for endpoint, key in (("echo", "alice"), ("echo", "bob"), ("gone", "alice"), ("", "")):
        keys.count(endpoint, key, 200, 0.5)
        keys.use(endpoint, key, 1, 2)
    here = {"echo": EndpointRoute(name="echo", revisions=())}
    keys.forget(Table(endpoints=here, keys={ALICE.digest: ALICE}))
    left = keys.text().decode()
    assert 'endpoint="echo",key="alice"' in left
    assert 'endpoint="",key=""' in left
    assert "bob" not in left
    assert "gone" not in left


def test_so_many_keys_have_series_of_their_own() -> None:
    keys = KeyMetrics(most=3)
    for number in range(10):
        keys.count("echo", f"k{number}", 200, 0.0)
    lines = keys.text().decode().splitlines()
    told = [line for line in lines if line.startswith("orchestrator_key_requests_total{")]
    assert len(told) == 4
    assert 'orchestrator_key_requests_total{code="200",endpoint="echo",key="other"} 7.0' in told


def test_counts_of_an_endpoint_that_is_gone_go_too() -> None:
    now = 1000.0
    board = Board(EndpointRoute(name="echo", revisions=()))
    metrics = Metrics(board, lambda: now)
    for name in ("echo", ""):
        metrics.refused(name, 429)
        metrics.retried(name)
        metrics.unmirrored(name)
    board.remove("echo")
    assert b'endpoint="echo"' in metrics.text()
    now += module._SECONDS_KEPT + 1
    text = metrics.text()
    assert b'endpoint="echo"' not in text
    assert b'orchestrator_refused_total{code="429",endpoint=""} 1.0' in text


@pytest.mark.parametrize("space", ["", " "])
def test_why_an_answer_ended_is_read_of_its_own_fields_alone(space: str) -> None:
    separators = (f",{space}", f":{space}")

    def written(value: object) -> bytes:
        return json.dumps(value, separators=separators).encode()

    trap = 'say "finish_reason": "trap", "stop_reason": "trap"'
    vllm = {"text": trap, "finish_reason": "stop", "stop_reason": "\n\n"}
    other = {"text": trap, "finish_reason": "length", "stop_reason": None}
    assert reasons_in(written({"choices": [vllm, other]})) == ["stop", "length"]
    assert reasons_in(written({"content": [trap], "stop_reason": "end_turn"})) == ["end_turn"]
    stream = EventStream()
    for choice in ({"text": trap, "finish_reason": None}, vllm, other):
        stream.feed(b"data: " + written({"choices": [choice]}) + b"\n\n")
    assert stream.reasons == ["stop", "length"]
