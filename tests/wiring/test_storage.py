"""Storage that other hosts can't see is refused, and what is said to be shared is proved."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.cli import main
from orchestrator.core.errors import ConfigError, StorageSetUpError
from orchestrator.core.settings import StorageSettings
from orchestrator.wiring.storage import unread
from tests.build import pool
from tests.clusters import POOLS

FAR = "cluster.address=10.0.0.9:6379"
NOOP = ("pipeline=noop", "tracking=none")
UNSEEN = (
    "not seen by the cluster at '10.0.0.9:6379'; name what all its hosts see (s3://BUCKET/...)"
)


def refusal(*overrides: str) -> str:
    """Return what is wrong with a config; empty where nothing is."""
    try:
        wiring.planned([*NOOP, *overrides])
    except ConfigError as error:
        return str(error)
    return ""


# --- plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["", "file:///data", "/data", "data"])
def test_a_folder_of_this_host_is_refused_for_a_cluster_elsewhere(uri: str) -> None:
    line = f"storage.uri: {uri!r} is a folder of this host, {UNSEEN}, or set storage.shared=true"
    assert refusal(FAR, f"storage.uri={uri}") == line


@pytest.mark.parametrize(
    "overrides",
    [
        ("storage.uri=/data",),
        (FAR, "storage.uri=/data", "storage.shared=true"),
        (FAR, "storage.uri=s3://bucket/x"),
        (FAR, "storage.uri=memory://x"),
        (FAR, "cluster=local"),
    ],
    ids=["managed", "shared", "bucket", "remote", "here"],
)
def test_what_others_see_is_taken(overrides: tuple[str, ...]) -> None:
    assert refusal(*overrides) == ""


@pytest.mark.parametrize("kind", ["file", "count"])
@pytest.mark.parametrize("target", ["/labels/*.csv", "labels", "file:///labels"])
def test_a_gate_on_a_path_of_this_host_is_refused_for_a_cluster_elsewhere(
    kind: str, target: str
) -> None:
    gate = f"+pipeline.stages.noop.gate={{kind: {kind}, target: '{target}'}}"
    line = (
        f"pipeline.stages.noop.gate.target: {target!r} is looked for on the host that drives the"
        " run, which may be one of the cluster at '10.0.0.9:6379'; name what all its hosts see"
        " (s3://BUCKET/...), or set gate.shared=true"
    )
    assert refusal(FAR, "storage.uri=s3://bucket/x", gate) == line


@pytest.mark.parametrize(
    "gate",
    [
        "{kind: file, target: /labels, shared: true}",
        "{kind: file, target: 's3://bucket/labels'}",
        "{kind: count, target: 'memory://labels/*.jsonl'}",
        "{kind: url, target: 'http://labels/ready'}",
        "{kind: approval, target: labels}",
    ],
)
def test_a_gate_that_is_seen_from_everywhere_is_taken(gate: str) -> None:
    words = (FAR, "storage.uri=s3://bucket/x", f"+pipeline.stages.noop.gate={gate}")
    assert refusal(*words) == ""


def test_a_gate_on_a_storage_that_can_not_be_opened_is_refused() -> None:
    gate = "+pipeline.stages.noop.gate={kind: file, target: 'nothing://x'}"
    assert refusal(gate).startswith(
        "pipeline.stages.noop.gate.target: 'nothing://x' can't be opened: "
    )


def test_the_environment_may_name_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.9:6379")
    assert UNSEEN in refusal()


@pytest.mark.parametrize("verb", [("plan",), ("launch",), ("launch", "--detach"), ("qualify",)])
def test_every_verb_that_runs_something_refuses_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("nvidia", "tracking=none", FAR) if verb == ("qualify",) else (*NOOP, FAR)
    assert main([*verb, *words]) == 2
    line = f"error: storage.uri: '' is a folder of this host, {UNSEEN}"
    assert line in capsys.readouterr().err
    assert not (tmp_path / ".orchestrator/events.db").exists()


# --- the proof ----------------------------------------------------------------------------------


def test_a_mark_is_read_or_it_is_told_why_not(tmp_path: Path) -> None:
    store = wiring.artifact_store(str(tmp_path))
    store.mark("marks/run", "here")
    assert unread(str(tmp_path), "marks/run", "here", {}) == ""
    unseen = "what the controller wrote there is not to be seen; name a storage that both see"
    assert unread(str(tmp_path), "marks/run", "elsewhere", {}) == unseen
    assert unread(str(tmp_path), "marks/other", "here", {}) == unseen
    assert "can't be opened" in unread("nosuch://x", "marks/run", "here", {})


@pytest.mark.ray
def test_each_pool_of_a_cluster_reads_what_this_host_has_written(
    ray_address: str, tmp_path: Path
) -> None:
    settings = replace(
        wiring.settings([*NOOP]), storage=StorageSettings(uri=tmp_path.as_uri(), shared=True)
    )
    pools = {**POOLS, "down": pool("down")}
    wiring.prove_storage(settings, tmp_path, "run", pools, {})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    alone = replace(settings, storage=StorageSettings(uri=f"memory://{secrets.token_hex(4)}"))
    said = r"pool 'nvidia' can't use storage.uri 'memory://\w+' on its node '[^']+': what the con"
    with pytest.raises(StorageSetUpError, match=said):
        wiring.prove_storage(alone, tmp_path, "run", {"nvidia": POOLS["nvidia"]}, {})
