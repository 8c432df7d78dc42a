"""KubeRay's manifests, checked without a cluster: by their schemas, and ties to the package."""

from __future__ import annotations

import copy
import importlib
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

import orchestrator
from orchestrator import wiring
from orchestrator.adapters.raycluster import managed_ray
from orchestrator.adapters.rayserve import state
from orchestrator.adapters.rayserve.engine_process import inherited
from orchestrator.cli.parser import parse
from orchestrator.core.settings import ClusterSettings, GatewaySettings
from orchestrator.core.spec.hardware import Pool
from orchestrator.wiring.adapters import DATABASE_VARIABLE, TRACKING_VARIABLE
from orchestrator.wiring.home_folder import SECRET_VARIABLE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker/kubernetes"
# Folders that may have the resources of KubeRay, a file each: helm-chart/kuberay-operator/crds.
CRDS = (
    os.environ.get("KUBERAY_CRDS", ""),  # noqa: TID251 - where they are
    str(ROOT.parent / "shared/schemas"),
)
PUBLISHED = next((Path(path) for path in CRDS if path and Path(path).is_dir()), None)
NEITHER = "neither KUBERAY_CRDS nor ../shared/schemas is a folder with KubeRay's resources"


def documents_of(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


INSTEAD = documents_of(FOLDER / "service.yaml")  # of cluster.yaml
DOCUMENTS = [
    document
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "service.yaml"
    for document in documents_of(path)
]
KUBERAYS = [
    document for document in (*DOCUMENTS, *INSTEAD) if document["apiVersion"].startswith("ray.io/")
]
SERVE_PORT = 8000  # as KubeRay expects it
ALL_OF_US = {"app.kubernetes.io/part-of": "orchestrator"}


def of_kind(kind: str, name: str = "") -> dict[str, Any]:
    (document,) = [
        document
        for document in DOCUMENTS
        if document["kind"] == kind and name in ("", document["metadata"].get("name"))
    ]
    return document


CLUSTER = of_kind("RayCluster")
GROUPS = {group["groupName"]: group for group in CLUSTER["spec"]["workerGroupSpecs"]}
GATEWAY = of_kind("Deployment")["spec"]["template"]
PODS = [
    CLUSTER["spec"]["headGroupSpec"]["template"],
    *(group["template"] for group in GROUPS.values()),
    GATEWAY,
]


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


CONTAINERS = [container for pod in PODS for container in containers_of(pod)]


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pool]:
    """The pools of the fleet that the pods are given."""
    folder = tmp_path_factory.mktemp("etc")
    (folder / "fleet").mkdir()
    for name, text in of_kind("ConfigMap")["data"].items():
        (folder / "fleet" / name).write_text(text, encoding="utf-8")
    settings = wiring.settings(["fleet=lab", "pipeline=r2"], config_dir=folder)
    assert settings.storage.uri.startswith("s3://")
    return dict(settings.fleet.pools)


def closed(schema: Any) -> Any:
    """Return a schema that takes no field that it doesn't name: Kubernetes would drop it."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(part) for key, part in schema.items()}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and not schema.get("x-kubernetes-preserve-unknown-fields"):
        parts.setdefault("additionalProperties", False)
    return parts


@pytest.mark.skipif(PUBLISHED is None, reason=NEITHER)
@pytest.mark.parametrize("document", KUBERAYS, ids=lambda document: document["kind"])
def test_the_manifests_are_what_kuberay_publishes(document: dict[str, Any]) -> None:
    assert PUBLISHED is not None
    (path,) = PUBLISHED.glob(f"*{document['kind'].lower()}s.yaml")
    versions = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["versions"]
    (version,) = [v for v in versions if document["apiVersion"] == f"ray.io/{v['name']}"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    jsonschema.Draft7Validator(closed(schema)).validate(document["spec"])
    wrong = {**document["spec"], "rayVersoin": "2"}
    assert list(jsonschema.Draft7Validator(closed(schema)).iter_errors(wrong))


def test_the_nodes_wait_longer_for_the_head_than_runs_do_and_it_keeps_what_it_knows() -> None:
    for pod in PODS[:-1]:
        (container,) = pod["spec"]["containers"]
        known = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert float(known["RAY_gcs_rpc_server_reconnect_timeout_s"]) > ClusterSettings().patience
        folders = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert str(Path(known["RAY_gcs_storage_path"]).parent) in folders


def test_each_of_kuberay_s_kinds_has_a_manifest() -> None:
    assert {document["kind"] for document in KUBERAYS} == {"RayCluster", "RayJob", "RayService"}


def test_a_ray_service_has_the_nodes_of_the_cluster_in_whose_place_it_stands() -> None:
    *others, service = sorted(INSTEAD, key=lambda document: document["kind"] == "RayService")
    assert others == [of_kind("ConfigMap"), of_kind("NetworkPolicy", "orchestrator")]
    assert service["metadata"] == CLUSTER["metadata"], "so that the gateway finds the head"
    nodes = copy.deepcopy(service["spec"]["rayClusterConfig"])
    (head,) = nodes["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["ports"].pop() == {"name": "serve", "containerPort": SERVE_PORT}
    for group in nodes["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        probe = container.pop("readinessProbe")  # else KubeRay's, which asks a proxy there
        assert probe["httpGet"] == {
            "path": "/api/healthz",
            "port": DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
        }
    assert nodes == CLUSTER["spec"]


def test_a_ray_service_lists_what_is_there_and_makes_no_cluster_in_place_of_its_own() -> None:
    (service,) = (document for document in INSTEAD if document["kind"] == "RayService")
    listed = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    assert (listed.proxy_location, listed.http_options.host) == ("HeadOnly", state.ANYWHERE)
    assert listed.http_options.port == SERVE_PORT
    (application,) = listed.applications
    module, _, name = application.import_path.partition(":")
    assert isinstance(getattr(importlib.import_module(module), name), Application)
    assert service["spec"]["upgradeStrategy"] == {"type": "None"}


def test_there_is_a_group_for_each_pool_with_its_nodes_labels_cores_and_chips(
    pools: dict[str, Pool],
) -> None:
    assert set(GROUPS) == set(pools)
    for name, pool in pools.items():
        group = GROUPS[name]
        assert {group["replicas"], group["minReplicas"], group["maxReplicas"]} == {pool.nodes}
        assert group["labels"] == pool.selector
        chips = pool.devices_per_node
        resource = pool.accelerator.resource
        known = {} if resource == "GPU" else {resource: str(chips)}
        assert group.get("resources", {}) == known
        start = group["rayStartParams"]
        assert start["num-gpus"] == str(chips if resource == "GPU" else 0)
        assert start["num-cpus"] == str(pool.cpus_per_node)
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        (device,) = [key for key in limits if "/" in key]
        assert limits[device] == container["resources"]["requests"][device] == chips
        assert container["image"].endswith(f"-{pool.accelerator.vendor}")
        (toleration,) = group["template"]["spec"]["tolerations"]
        assert toleration["key"] == device


def test_images_and_ray_are_of_the_package_s_versions() -> None:
    for container in CONTAINERS:
        name, _, tag = container["image"].partition(":")
        assert (name, tag.partition("-")[0]) == ("orchestrator", orchestrator.__version__)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert f"ray=={CLUSTER['spec']['rayVersion']}" in lock


def test_everybody_means_the_same_ports() -> None:
    (head,) = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert {port["name"]: port["containerPort"] for port in head["ports"]} == {
        "gcs": 6379,
        "dashboard": 8265,
    }
    ray, gateway = containers_of(GATEWAY)
    service = f"{CLUSTER['metadata']['name']}-head-svc:6379"  # as KubeRay names it
    assert f"--address={service}" in ray["command"]
    assert {"name": "RAY_ADDRESS", "value": service} in gateway["env"]
    port = GatewaySettings().port
    assert gateway["ports"] == [{"name": "http", "containerPort": port}]
    assert of_kind("Service")["spec"]["ports"] == [
        {"name": "http", "port": port, "targetPort": "http"}
    ]


def test_nodes_are_watched_as_those_of_a_managed_cluster() -> None:
    ours = {
        name: value
        for name, value in managed_ray._ENVIRONMENT.items()
        if "health" in name or "SERVE" in name or "cleanup" in name
    }
    for pod in PODS[:-1]:
        (container,) = containers_of(pod)
        known = {item["name"]: item.get("value") for item in container["env"]}
        assert {name: known.get(name) for name in ours} == ours


def test_no_secret_is_written_down_and_all_come_from_one() -> None:
    for path in FOLDER.glob("*.yaml"):
        text = re.sub(r"(?m)^#.*$", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"(?i)password|auth_token: |postgresql://", text), path.name
    name = CLUSTER["spec"]["authOptions"]["secretName"]
    assert CLUSTER["spec"]["authOptions"]["mode"] == "token"
    for container in CONTAINERS:
        secret = {"secretRef": {"name": name}} in container.get("envFrom", ())
        assert secret or container["name"] == "ray"


def test_what_makes_the_secret_gives_all_pods_one_to_seal_by() -> None:
    text = (FOLDER / "cluster.yaml").read_text(encoding="utf-8")
    given = re.findall(r"--from-literal=(\w+)=", text)
    assert {"auth_token", SECRET_VARIABLE, DATABASE_VARIABLE, TRACKING_VARIABLE} <= {*given}


def test_no_engine_has_what_the_secret_gives_its_pod() -> None:
    text = (FOLDER / "cluster.yaml").read_text(encoding="utf-8")
    given = dict(re.findall(r"--from-literal=(\w+)=(\S+)", text))
    assert inherited(given).keys() <= {TRACKING_VARIABLE}, "an address without a password"
    assert not inherited({TRACKING_VARIABLE: "https://USER:PASSWORD@HOST"})


def test_no_pod_is_root_may_become_it_or_may_ask_kubernetes() -> None:
    for pod in PODS:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in containers_of(pod):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_pods_hear_each_other_alone_but_for_the_gateway_whom_clients_ask() -> None:
    assert all(ALL_OF_US.items() <= pod["metadata"]["labels"].items() for pod in PODS)
    inside, outside = (
        of_kind("NetworkPolicy", name)["spec"] for name in ("orchestrator", "orchestrator-gateway")
    )
    assert inside["podSelector"]["matchLabels"] == ALL_OF_US
    (rule,) = inside["ingress"]
    assert rule["from"][0] == {"podSelector": {"matchLabels": ALL_OF_US}}
    assert outside["podSelector"] == of_kind("Deployment")["spec"]["selector"]
    assert outside["ingress"] == [{"ports": [{"port": "http"}]}]


def test_the_commands_are_the_package_s_own() -> None:
    _, gateway = containers_of(GATEWAY)
    words = of_kind("RayJob")["spec"]["entrypoint"].split()
    assert words[0] == "orchestrator"
    for arguments in (gateway["args"], words[1:]):
        args = parse(arguments)
        assert args.config_dir == Path("/etc/orchestrator")
        assert "fleet=lab" in args.overrides
