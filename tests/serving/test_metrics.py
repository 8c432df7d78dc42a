"""The gateway's metrics in Prometheus' conventions, which Prometheus' own tool judges."""

from __future__ import annotations

import shutil
import subprocess

import httpx2 as httpx
import pytest

from orchestrator.serving import metrics as module
from orchestrator.serving.metrics import Metrics, Tally
from orchestrator.serving.routes import EndpointRoute
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision

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
    done = subprocess.run(
        [str(shutil.which("promtool")), "check", "metrics"],
        input=text,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_no_series_says_when_it_was_made_and_shares_are_ratios() -> None:
    half = revision("r1", "http://a", share=50)
    metrics = Metrics(Board(EndpointRoute(name="echo", revisions=(half,))))
    metrics.answered("echo", half, Tally(0.0, last=1.0, status=200))
    assert b"_created" not in metrics.text()


def test_a_revision_that_has_left_is_told_for_a_while_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "perf_counter", lambda: now)
    old, new = revision("r1", "http://a"), revision("r2", "http://b")
    board = Board(EndpointRoute(name="echo", revisions=(old, new)))
    metrics = Metrics(board)
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
