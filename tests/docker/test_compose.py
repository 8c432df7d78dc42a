"""The compose file, checked without an engine: its form, and ties to the package's settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

import orchestrator
from orchestrator import wiring
from orchestrator.core.settings import ClusterSettings, GatewaySettings
from orchestrator.core.spec.hardware import Pool
from orchestrator.service.asking import KEY_VARIABLE
from orchestrator.wiring.home_folder import SECRET_VARIABLE

FILE = Path(__file__).parents[2] / "docker/compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
GCS, DASHBOARD, MLFLOW = 6379, 8265, 5000

WORDS = {"type": "array", "items": {"type": "string"}}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
SECONDS = {"type": "string", "pattern": r"^\d+s$"}
CONDITION = {"properties": {"condition": {"const": "service_healthy"}}, "required": ["condition"]}
HEALTH = {
    "type": "object",
    "additionalProperties": False,
    "required": ["test", "interval", "timeout", "retries"],
    "properties": {
        "test": {**WORDS, "prefixItems": [{"const": "CMD"}]},
        "interval": SECONDS,
        "timeout": SECONDS,
        "retries": {"type": "integer"},
        "start_period": SECONDS,
    },
}
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image", "environment", "restart", "security_opt"],
    "properties": {
        "image": {"type": "string", "pattern": r"^[\w/]+:\d+(\.\d+)+$"},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "context": {"const": ".."},
                "dockerfile": {"const": "docker/Dockerfile"},
                "args": TEXTS,
            },
        },
        "entrypoint": WORDS,
        "command": WORDS,
        "environment": TEXTS,
        "healthcheck": HEALTH,
        "depends_on": {"type": "object", "additionalProperties": CONDITION},
        "ports": {**WORDS, "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "restart": {"enum": ["unless-stopped", "on-failure"]},
        "shm_size": {"type": "string", "pattern": r"^\d+[mg]b$"},
        "stop_grace_period": SECONDS,
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "volumes": WORDS,
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "services", "volumes"],
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"const": "orchestrator"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
}


@pytest.fixture(scope="module")
def pools() -> dict[str, Pool]:
    return dict(wiring.settings(["fleet=local", "pipeline=noop"]).fleet.pools)


OF_OTHERS = {"database", "store"}  # images of PostgreSQL's and SeaweedFS' own
OURS = SERVICES.keys() - OF_OTHERS


def options(service: str) -> dict[str, str]:
    """Return the options of a service's command, `--name=value`, by name."""
    parts = [word.removeprefix("--").partition("=") for word in SERVICES[service]["command"]]
    return {name: value for name, _, value in parts}


def test_the_file_has_the_form_of_a_compose_file() -> None:
    jsonschema.validate(COMPOSE, SCHEMA)


def test_whoever_is_waited_for_and_every_volume_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES) - {name}
    kept = [volume for s in SERVICES.values() for volume in s.get("volumes", ())]
    assert sorted(volume.split(":")[0] for volume in kept) == sorted(COMPOSE["volumes"])


def test_no_two_services_have_a_folder_in_common() -> None:
    for name in SERVICES.keys() - {"bucket"}:
        (volume,) = SERVICES[name]["volumes"]
        assert volume.split(":")[0] == name


def test_there_is_a_node_for_each_pool_and_what_they_share(pools: dict[str, Pool]) -> None:
    shared = {"gateway", "database", "store", "bucket", "mlflow"}
    assert set(SERVICES) == {"head", *shared, *pools}


def test_a_node_carries_the_labels_the_chips_and_the_cores_of_its_pool(
    pools: dict[str, Pool],
) -> None:
    for name, pool in pools.items():
        resource, said = pool.accelerator.resource, options(name)
        custom = {} if resource == "GPU" else {resource: pool.devices_per_node}
        assert pool.nodes == 1
        assert dict(pair.split("=") for pair in said["labels"].split(",")) == pool.selector
        assert json.loads(said["resources"]) == custom
        assert int(said["num-gpus"]) == (pool.devices_per_node if resource == "GPU" else 0)
        assert int(said["num-cpus"]) == pool.cpus_per_node


def test_no_work_runs_on_the_head() -> None:
    assert (options("head")["num-cpus"], options("head")["num-gpus"]) == ("0", "0")


def test_everybody_means_the_same_ports(pools: dict[str, Pool]) -> None:
    assert options("head")["port"] == str(GCS)
    assert options("head")["dashboard-port"] == str(DASHBOARD)
    assert options("mlflow")["port"] == str(MLFLOW)
    assert SERVICES["head"]["ports"] == [f"127.0.0.1:{DASHBOARD}:{DASHBOARD}"]
    port = GatewaySettings().port
    assert SERVICES["gateway"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    (line,) = SERVICES["gateway"]["command"]
    assert f"--address=head:{GCS} " in line
    assert f"gateway.url=http://gateway:{port}" in line
    assert SERVICES["mlflow"]["ports"] == [f"127.0.0.1:{MLFLOW}:{MLFLOW}"]
    for name in ("head", "gateway", *pools):
        known = SERVICES[name]["environment"]
        assert known["RAY_ADDRESS"] == f"head:{GCS}"
        assert known["MLFLOW_TRACKING_URI"] == f"http://mlflow:{MLFLOW}"
    assert {options(name)["address"] for name in pools} == {f"head:{GCS}"}


def test_the_nodes_wait_longer_for_the_head_than_runs_do_and_it_keeps_what_it_knows(
    pools: dict[str, Pool],
) -> None:
    for name in ("head", *pools):
        known = SERVICES[name]["environment"]
        assert float(known["RAY_gcs_rpc_server_reconnect_timeout_s"]) > ClusterSettings().patience
    (volume,) = SERVICES["head"]["volumes"]
    assert known["RAY_gcs_storage_path"].startswith(volume.partition(":")[2] + "/")


def test_the_image_is_of_this_version_and_the_same_for_all() -> None:
    images = {SERVICES[name]["image"] for name in OURS}
    assert images == {f"orchestrator:{orchestrator.__version__}"}


def test_the_image_is_built_with_torch_for_the_cpu_alone() -> None:
    builds = [service["build"] for service in SERVICES.values() if "build" in service]
    dockerfile = FILE.with_name("Dockerfile").read_text(encoding="utf-8")
    for build in builds:
        (argument,) = build["args"]
        assert f"ARG {argument}\n" in dockerfile
        assert build["args"][argument].endswith("/whl/cpu")


def test_whoever_asks_from_another_container_or_from_outside_shows_a_key() -> None:
    text = FILE.read_text(encoding="utf-8")
    typed = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    (keys,) = (i for i, line in enumerate(typed) if " keys add " in line)
    asking = [i for i, line in enumerate(typed) if " ask " in line or "/v1/" in line]
    assert len(asking) == 2
    for i in asking:
        assert i > keys
        assert f"{KEY_VARIABLE}=KEY" in typed[i] or "Bearer KEY" in typed[i]


def test_what_opens_doors_has_no_default() -> None:
    text = FILE.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    assert named == {"RAY_AUTH_TOKEN", SECRET_VARIABLE, "DATABASE_PASSWORD", "STORE_SECRET"}
    (exported,) = re.findall(r"^#   for name in (.*); do export", text, re.MULTILINE)
    assert set(exported.split()) == named
    assert set(re.findall(r"(?<!\$)\$\{(\w+):\?", text)) == named
    assert len(re.findall(r"(?<!\$)\$\{", text)) == len(re.findall(r"(?<!\$)\$\{\w+:\?", text))


def test_what_is_typed_keeps_artifacts_where_every_container_reads_them() -> None:
    (typed,) = re.findall(r"orchestrator launch (.*)", FILE.read_text(encoding="utf-8"))
    storage = wiring.settings(typed.split()).storage
    (line,) = SERVICES["bucket"]["command"]
    assert f"makedirs('{urlsplit(storage.uri).hostname}'" in line
    assert urlsplit(storage.uri).scheme == "s3"
    assert not storage.shared, "no two containers have a folder in common"


def test_all_share_a_database_and_a_store_that_speak_for_themselves(
    pools: dict[str, Pool],
) -> None:
    for name in ("head", "gateway", *pools):
        known = SERVICES[name]["environment"]
        assert known["RAY_AUTH_MODE"] == "token"
        assert known[SECRET_VARIABLE].startswith("${")
        address = urlsplit(re.sub(r"\$\{.*?\}", "secret", known["ORCHESTRATOR_DATABASE"]))
        owner = SERVICES["database"]["environment"]["POSTGRES_USER"]
        assert (address.hostname, address.username) == ("database", owner)
        assert address.path == f"/{owner}"
        store = urlsplit(known["AWS_ENDPOINT_URL"])
        (line,) = SERVICES["store"]["command"]
        assert (store.hostname, f"-s3.port={store.port}" in line) == ("store", True)
        assert f'"accessKey": "{known["AWS_ACCESS_KEY_ID"]}"' in line
    assert "encoding=UTF8" in SERVICES["database"]["environment"]["POSTGRES_INITDB_ARGS"]


def test_the_nodes_are_watched_as_those_of_a_managed_cluster() -> None:
    from orchestrator.adapters.raycluster import managed_ray

    ours = {
        name: value
        for name, value in managed_ray._ENVIRONMENT.items()
        if "health" in name or "SERVE" in name
    }
    known = SERVICES["head"]["environment"]
    assert ours
    assert {name: known[name] for name in ours} == ours


def test_mlflow_is_as_closed_as_a_managed_one() -> None:
    from orchestrator.adapters import mlflow_server

    assert SERVICES["mlflow"]["environment"] == mlflow_server._ENVIRONMENT
    hosts = options("mlflow")["allowed-hosts"].split(",")
    assert hosts == [f"{host}:{MLFLOW}" for host in ("mlflow", "localhost", "127.0.0.1")]


def test_ray_knows_every_option(pools: dict[str, Pool]) -> None:
    from ray.scripts.scripts import cli

    for name in ("head", *pools):
        words = [*SERVICES[name]["entrypoint"][1:], *SERVICES[name]["command"]]
        cli.commands[words[0]].make_context("start", words[1:]).close()
        check = SERVICES[name]["healthcheck"]["test"]
        assert check[:2] == ["CMD", "ray"]
        cli.commands[check[2]].make_context("check", check[3:]).close()


def test_mlflow_knows_every_option() -> None:
    words = [*SERVICES["mlflow"]["entrypoint"], *SERVICES["mlflow"]["command"]]
    wrong = [sys.executable, "-m", *words, "--no-such-option"]
    said = subprocess.run(wrong, capture_output=True, text=True, timeout=100, check=False).stderr
    assert "No such option" in said  # options are read in order: all before it are known
    assert "--no-such-option" in said
