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


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "file:///data",
        "/data",
        "local:///data",
        "dir:///data",
        "simplecache::file:///data",
        "blockcache::/data",
        "dir://x::local:///data",
    ],
)
def test_a_folder_of_this_host_is_refused_for_a_cluster_elsewhere(uri: str) -> None:
    line = f"storage.uri: {uri!r} is a folder of this host, {UNSEEN}, or set storage.shared=true"
    assert refusal(FAR, f"storage.uri={uri}") == line


@pytest.mark.parametrize(
    "overrides",
    [
        ("storage.uri=/data",),
        (FAR, "storage.uri=/data", "storage.shared=true"),
        (FAR, "storage.uri=s3://bucket/x"),
        (FAR, "storage.uri=simplecache::s3://bucket/x"),
        (FAR, "storage.uri=local:///data", "storage.shared=true"),
        (FAR, "cluster=local"),
        ("cluster=local", "storage.uri=memory://x"),
    ],
    ids=["managed", "shared", "bucket", "chain", "shared by another name", "here", "one process"],
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


@pytest.mark.parametrize("uri", ["memory://x", "simplecache::memory://x"])
@pytest.mark.parametrize("overrides", [(), (FAR,), (FAR, "storage.shared=true")])
def test_the_memory_of_a_process_is_refused_for_any_cluster_of_processes(
    uri: str, overrides: tuple[str, ...]
) -> None:
    what = f"storage.uri: {uri!r} is the memory of one process, and a cluster has several"
    hint = "name what all of them see (s3://BUCKET/...), or set cluster=local"
    assert refusal(*overrides, f"storage.uri={uri}") == f"{what}; {hint}"


MENDED = {
    "s3://": "'s3://' names no bucket; write s3://BUCKET/...",
    "s3:///runs": "'s3:///runs' names no bucket; write s3://BUCKET/...",
    "simplecache::s3://": "'simplecache::s3://' names no bucket; write s3://BUCKET/...",
    "s3://B_A D/x": "'B_A D' is no name of a bucket; it has small letters",
    "s3://Runs": "'Runs' is no name of a bucket; it has small letters",
    "gs://-x/y": "'-x' is no name of a bucket; it has small letters",
    "http://h/x": "what http:// names can be read alone, and runs write there; name a bucket",
    "http://u:hunter2@h/x": "what http:// names can be read alone",
    "simplecache::https://h/x": "what https:// names can be read alone",
    "data://x": "what data:// names can be read alone",
    "github://o:r@main": "what github:// names can be read alone",
    "S3://runs/x": "'S3://runs/x' can't be opened: Protocol not known: S3; write s3://",
    "nfs://h/x": "'nfs://h/x' can't be opened: Protocol not known: nfs; name what fsspec knows",
}


@pytest.mark.parametrize(("uri", "line"), MENDED.items())
@pytest.mark.parametrize("where", ["cluster=local", FAR])
def test_a_storage_that_no_run_can_write_to_is_refused_with_the_way_out(
    uri: str, line: str, where: str
) -> None:
    said = refusal(where, f"storage.uri='{uri}'")
    assert said.startswith(f"storage.uri: {line}")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "uri", ["s3://bucket", "s3://a.b-c/x", "s3://arn:aws:s3:::accesspoint/p", "memory://x", "/srv"]
)
def test_a_storage_that_a_run_may_write_to_is_taken(uri: str) -> None:
    assert refusal("cluster=local", f"storage.uri='{uri}'") == ""


@pytest.mark.parametrize("uri", ["data", "./data", "../place/data", "file://data", "local:data"])
def test_a_folder_is_the_same_from_whichever_folder_commands_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    settings = wiring.settings([*NOOP, f"storage.uri={uri}", "storage.cache=cache"])
    monkeypatch.chdir(tmp_path)
    artifact_store = wiring.artifact_store(settings.storage.uri)
    artifact_store.mark("marks/run", "here")
    assert (tmp_path / "place/data/marks/run").is_file()
    resolved = wiring.pinned(settings)["storage"]
    assert isinstance(resolved, dict)
    assert resolved["uri"] == settings.storage.uri, "as later commands read it"
    assert settings.storage.cache == str(tmp_path / "place/cache")
    changed = wiring.configs.changed(wiring.pinned(settings), [f"storage.uri={uri}"])
    assert wiring.configs.parse(changed).storage.uri.endswith(
        str(tmp_path.parent / "place/data" if uri[:2] == ".." else tmp_path / "data")
    )


def test_a_refusal_names_the_whole_path_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"{str(tmp_path / 'data')!r} is a folder of this host" in refusal(
        FAR, "storage.uri=data"
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
    assert unread(str(tmp_path), "marks/run", "here", {}, 20.0) == ""
    unseen = "what the controller wrote there is not to be seen; name a storage that both see"
    assert unread(str(tmp_path), "marks/run", "elsewhere", {}, 20.0) == unseen
    assert unread(str(tmp_path), "marks/other", "here", {}, 20.0) == unseen
    assert "can't be opened" in unread("nosuch://x", "marks/run", "here", {}, 20.0)


def test_this_host_shows_that_it_can_write_before_there_is_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").touch()  # a file where the folder would be
    assert main(["launch", *NOOP, "cluster=local", f"storage.uri={tmp_path / 'data'}"])
    said = f"error: storage.uri '{tmp_path / 'data'}' can't be used: "
    assert said in capsys.readouterr().err
    assert wiring.database(tmp_path / ".orchestrator").runs() == []
    (tmp_path / "data").unlink()
    settings = wiring.settings([*NOOP, f"storage.uri={tmp_path / 'data'}"])
    wiring.prove_storage_here(settings, tmp_path, "run")
    assert [path for path in tmp_path.joinpath("data").rglob("*") if path.is_file()] == []


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
