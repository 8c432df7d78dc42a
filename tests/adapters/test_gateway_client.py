"""The gateway's figures, read from what it tells Prometheus."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.gateway_client import GatewayTraffic, figures_in, gauge_in
from orchestrator.core.endpoints.probes import completion
from orchestrator.core.endpoints.promotion import Times, TrafficFigures

TEXT = """# HELP orchestrator_requests_total Answered by a revision.
orchestrator_requests_total{endpoint="chat",revision="r1",pool="a",code="200"} 90.0
orchestrator_requests_total{endpoint="chat",revision="r1",pool="a",code="400"} 5.0
orchestrator_requests_total{endpoint="other",revision="r1",pool="a",code="200"} 7.0
orchestrator_errors_total{endpoint="chat",revision="r2",pool="b",kind="unreachable"} 3.0
gen_ai_server_time_to_first_token_seconds_sum{endpoint="chat",revision="r1",pool="a"} 9.0
gen_ai_server_time_to_first_token_seconds_count{endpoint="chat",revision="r1",pool="a"} 90.0
gen_ai_server_time_to_first_token_seconds_bucket{endpoint="chat",revision="r1",le="1"} 90.0
gen_ai_server_time_to_first_token_seconds_bucket{endpoint="chat",revision="r1",le="+Inf"} 90.0
orchestrator_replicas{endpoint="chat",revision="r1",pool="a"} 2.0
orchestrator_replicas{endpoint="other",revision="r1",pool="a"} 1.0
"""


def test_figures_are_those_of_the_endpoint_by_revision() -> None:
    assert figures_in(TEXT, "chat") == {
        "r1": TrafficFigures(
            requests=95.0,
            statuses={200: 90.0, 400: 5.0},
            first=Times(90.0, 9.0, ((1.0, 90.0),)),
        ),
        "r2": TrafficFigures(requests=3.0, errors=3.0),
    }
    assert figures_in(TEXT, "nothing") == {}
    assert [gauge_in(TEXT, "orchestrator_replicas", name) for name in ("chat", "nothing")] == [
        2,
        0,
    ]


def test_a_replica_that_does_not_answer_has_no_status(tmp_path: Path) -> None:
    answer = GatewayTraffic(SqlDatabase(tmp_path / "events.db")).ask(
        "http://127.0.0.1:9", "token", completion("chat", "1 + 1 =")
    )
    assert (answer.status, answer.good) == (0, False)
