"""What an attempt starts writes by MLflow's own client to the MLflow run of that attempt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.mlflow_tracker import MlflowTracker, ServerAccess, run_variables
from orchestrator.core.runs.states import AttemptSucceeded, RunSucceeded
from orchestrator.messages import AttemptRequest, TrackedAt
from tests.adapters.mlflow_tracker.seen import Seen
from tests.build import attempt_request

SCRIPT = "import mlflow; mlflow.log_metric('mine', 3.0, step=7); mlflow.log_param('theirs', 'x')"


def request(uri: str, experiment: str, **changes: object) -> AttemptRequest:
    facts = {"run": "r2-1", "stage": "data", "attempt": 1, **changes}
    return attempt_request(tracked=TrackedAt(uri, experiment), **facts)


def test_a_script_s_own_client_writes_to_the_run_of_its_attempt(
    tale: Callable[..., object],
    track: Callable[..., MlflowTracker],
    uri: str,
    experiment: str,
) -> None:
    story = tale()
    story.begin("data")
    tracker = track(story)
    asked = request(uri, experiment)
    variables, why = run_variables(asked, ServerAccess(), SystemClock(), patience=30.0)
    assert (sorted(variables), why) == (
        ["MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"],
        "",
    )
    environment = {**os.environ, **variables}  # noqa: TID251 - what it starts reads it
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, timeout=100)
    story.say(AttemptSucceeded("data", 1, None, {"examples": 5.0}), RunSucceeded())
    assert tracker.close(60.0)
    seen = Seen(uri, experiment)
    run = seen.runs["r2-1/data/1"]
    assert run.info.run_id == variables["MLFLOW_RUN_ID"]
    assert run.data.metrics == {"mine": 3.0, "examples": 5.0}
    assert run.data.params["theirs"] == "x"
    assert run.info.status == "FINISHED"


def test_where_there_is_no_such_run_or_no_server_the_reason_is_told(
    uri: str, experiment: str
) -> None:
    clock, access = SystemClock(), ServerAccess()
    variables, why = run_variables(request(uri, experiment), access, clock, patience=0.0)
    assert not variables
    assert experiment in why
    away = request("http://127.0.0.1:1", experiment)
    variables, why = run_variables(away, access, clock, patience=0.0)
    assert not variables
    assert why.startswith("http://127.0.0.1:1: ")
    assert why.endswith("; name an address in tracking.uri that the pool's hosts reach")
