"""The whole product on real parts: Ray trains on one pool and serves on another, MLflow tells."""

from __future__ import annotations

import json
import secrets
import socket
import urllib.request
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from orchestrator.adapters.raycluster import machine, managed_ray
from tests.test_readme import README, blocks, files

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(480)]
PORT = 18473
SECRET = "A_SECRET"  # noqa: S105 - a name
# The gate as it is shipped, with all its limits: they go with the revision that it lets pass.
GATE = (
    "+job@pipeline.stages.reference=reference",
    "+pipeline.stages.reference.inputs={data: data, model: pretrain}",
    "pipeline.stages.reference.params.questions=32",
    "+job@pipeline.stages.parity=parity",
    "+pipeline.stages.parity.inputs={reference: reference, model: export}",
    "+pipeline.stages.serve.after=[parity]",
)
# Dealt out to its two workers: what they train in parts is compared, and served, as a whole.
SHARDED = "+pipeline.stages.pretrain.params.parallel={shard: 2}"
STAGES = {"data", "pretrain", "evaluate", "export", "reference", "parity", "serve"}
DASHBOARD = (
    "/api/v0/actors?detail=1&limit=1000",
    "/api/v0/tasks?detail=1&limit=1000",
    "/api/jobs/",
)


@pytest.fixture(scope="module")
def launched(workplace: Any) -> Any:
    """A finished launch of the smoke pipeline with a gate, whose endpoint is up."""
    workplace.environment[SECRET] = f"xyzzy-{secrets.token_hex(16)}"
    given = [f"+pipeline.stages.{s}.secrets={{{SECRET}: {SECRET}}}" for s in ("pretrain", "serve")]
    words = ("launch", "pipeline=smoke", f"gateway.port={PORT}", SHARDED, *given, *GATE)
    done = workplace.run(*words, seconds=390)
    assert done.returncode == 0, done.stdout + done.stderr
    return workplace


def one_run(home: Any) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(home.run("status", "--json").stdout)[0]
    return run


def search(uri: str, home: Any) -> list[dict[str, Any]]:
    body = json.dumps({"experiment_ids": experiments(uri), "max_results": 100}).encode()
    found = post(f"{uri}/api/2.0/mlflow/runs/search", body)["runs"]
    return [run for run in found if run["info"]["lifecycle_stage"] == "active"]


def experiments(uri: str) -> list[str]:
    found = post(f"{uri}/api/2.0/mlflow/experiments/search", b'{"max_results": 10}')
    return [item["experiment_id"] for item in found["experiments"]]


def post(url: str, body: bytes) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
        value: dict[str, Any] = json.load(answer)
        return value


def test_training_ran_on_one_pool_and_serving_on_the_other(launched):
    run = one_run(launched)
    pools = {stage["stage"]: stage["pool"] for stage in run["stages"]}
    assert run["state"] == "succeeded"
    assert pools["pretrain"] == "nvidia"
    assert pools["serve"] == "ascend"
    assert run["emulated"] is True


def test_the_official_client_is_answered_by_the_served_model(launched):
    client = OpenAI(base_url=f"http://127.0.0.1:{PORT}/smoke/v1", api_key="none")
    message = {"role": "user", "content": "2 + 2 ="}
    whole = client.chat.completions.create(
        model="smoke", messages=[message], max_tokens=8, temperature=0
    )
    assert whole.usage is not None
    assert whole.usage.completion_tokens >= 1
    stream = client.chat.completions.create(
        model="smoke", messages=[message], max_tokens=8, temperature=0, stream=True
    )
    pieces = "".join(piece.choices[0].delta.content or "" for piece in stream)
    assert pieces == (whole.choices[0].message.content or "")


def test_ask_finds_the_endpoint_by_itself(launched):
    asked = launched.run("ask", "2 + 2 =")
    assert asked.returncode == 0, asked.stderr


def test_nothing_listens_to_other_machines_but_grpc_of_serves_replicas(launched):
    home, listening, open_to_others = str(launched.folder), 0, set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if home not in f"{process.cmdline()} {process.environ()}":
                continue
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    listening += 1
                    address = connection.laddr.ip.removeprefix("::ffff:")
                    if not ip_address(address).is_loopback:
                        open_to_others.add(process.cmdline()[0])
    assert listening > 10, "the gateway, MLflow, and what Ray has of a head and two nodes"
    # Ray gives the server of these no address to choose: no request of ours comes that way
    assert [name for name in open_to_others if ":engine" not in name] == []


def test_no_secret_is_in_a_file_on_a_command_line_or_in_the_dashboard(launched):
    home = launched.folder / ".orchestrator"
    token, seal = home / "services/ray.token", home / "secret"
    hidden = [launched.environment[SECRET], token.read_text(), seal.read_text().strip()]
    cluster = managed_ray.find(home)
    assert cluster is not None
    places = {str(f): f.read_bytes() for f in files_of(home, machine.root(home)) - {token, seal}}
    places["ps"] = str([p.info["cmdline"] for p in psutil.process_iter(["cmdline"])]).encode()
    for path in DASHBOARD:
        request = urllib.request.Request(f"{cluster.dashboard}{path}")  # noqa: S310 - loopback
        request.add_header("Authorization", f"Bearer {token.read_text()}")
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            places[path] = answer.read()
    assert b"ServeReplica" in places[DASHBOARD[0]]
    assert len(places) > 100, "database, MLflow, artifacts, and what Ray writes of each process"
    found = [p for p, text in places.items() if any(one.encode() in text for one in hidden)]
    assert found == []


def files_of(*folders: Path) -> set[Path]:
    return {f for folder in folders for f in folder.rglob("*") if f.is_file()}


def test_mlflow_has_the_run_as_one_tree(launched):
    uri = launched.run("up", f"gateway.port={PORT}").stdout.split("MLflow:")[1].split()[0]
    runs = search(uri, launched)
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs]
    parents = [run for run, t in zip(runs, tags, strict=True) if "mlflow.parentRunId" not in t]
    children = [t for t in tags if "mlflow.parentRunId" in t]
    assert [run["info"]["status"] for run in parents] == ["FINISHED"]
    assert {t["stage"] for t in children} == STAGES
    assert all(t["emulated"] == "true" for t in children)
    figures = {metric["key"]: metric["value"] for metric in parents[0]["data"]["metrics"]}
    accuracies = [value for key, value in figures.items() if key.endswith("accuracy")]
    losses = [value for key, value in figures.items() if key.endswith("loss")]
    assert accuracies, figures
    assert losses, figures
    assert all(0.0 <= value <= 1.0 for value in accuracies), figures
    assert all(0.0 < value < 10.0 for value in losses), figures


def test_a_second_launch_from_python_reuses_what_is_done_and_serves_on_the_other_pool(launched):
    """The page about Python is executed, but for the pool and the port."""
    words = f'"pipeline=smoke", "gateway.port={PORT}", "{SHARDED}", "roles.serve=nvidia"'
    page = (README.parent / "docs/python.md").read_text(encoding="utf-8")
    code = "\n".join(blocks("python", page)).replace('"pipeline=smoke"', words)
    (launched.folder / "mypackage").mkdir()
    (launched.folder / "mypackage/words.py").write_text(files()["mypackage/words.py"])
    done = launched.python(code, seconds=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"127.0.0.1:{PORT}/smoke/v1 {{'r2': 100}}\n{{'r2': 'nvidia'}}" in done.stdout
    assert done.stdout.endswith("{'words': 6.0}\n")
    own, second, *_ = json.loads(launched.run("status", "--json").stdout)
    assert own["pipeline"] == "mine"
    assert {stage["stage"]: stage["pool"] for stage in second["stages"]}["serve"] == "nvidia"
    assert sum(bool(stage["reused_from"]) for stage in second["stages"]) == 4
    (endpoint,) = json.loads(launched.run("endpoints", "--all", "--json").stdout)
    assert endpoint["shares"] == {"r2": 100}
    assert [one["state"] for one in endpoint["revisions"]] == ["retired", "ready"]
    assert [move["shares"] for move in endpoint["moves"]] == [
        {"r1": 100},
        {"r1": 95, "r2": 5},
        {"r1": 75, "r2": 25},
        {"r2": 100},
    ]


def test_down_leaves_no_process_and_no_port(launched):
    assert launched.run("down").returncode == 0
    home = str(launched.folder)
    left = [p.info for p in psutil.process_iter(["cmdline"]) if home in str(p.info["cmdline"])]
    assert left == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", PORT)) != 0
    assert launched.run("down").stdout.strip() == "Nothing was running."
    assert not list(Path(launched.folder).glob(".orchestrator/services/*.json"))
