"""`orchestrator plan`: what it shows, and what it refuses before a run has a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ODD_FLEET = """\
# @package _global_
defaults:
  - /accelerator@fleet.pools.big.accelerator: h100
  - /accelerator@fleet.pools.small.accelerator: ascend_910c
  - /accelerator@fleet.pools.away.accelerator: h100
  - _self_
fleet:
  name: odd
  pools:
    big: {nodes: 256, devices_per_node: 8, cpus_per_node: 64}
    small: {nodes: 6, devices_per_node: 8, cpus_per_node: 64}
    away: {nodes: 1, devices_per_node: 8, available: false, reason: export ban}
roles: {prepare: big, train: big, serve: big}
fallbacks: {train: [small, away]}
"""
PIPELINE = """\
name: own
stages:
  gang:
    job: jobs.noop.noop
    role: train
    needs: {workers: {min: 8, max: 2048}, devices: 1}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of configs with a space in its name."""
    folder = tmp_path / "my configs"
    for name, text in (("fleet/odd", ODD_FLEET), ("pipeline/own", PIPELINE)):
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_an_elastic_gang_shows_its_fewest_and_most_chips_on_each_pool(within, own):
    done = within("plan", "--config-dir", str(own), "pipeline=own", "fleet=odd")
    assert done.returncode == 0, done.stderr
    chips = {word for row in rows(done.stdout) for word in row if ".." in word}
    assert chips == {"8..2048", "8..48"}


def test_a_fallback_that_is_not_available_is_left_out_with_a_line(within, own):
    words = ("plan", "--config-dir", str(own), "pipeline=own", "fleet=odd")
    assert "gang: away is not available (export ban): no fallback." in within(*words).stdout
    (stage,) = json.loads(within(*words, "--json").stdout)["stages"]
    assert (stage["fallbacks"], stage["left_out"]) == (["small"], ["away"])


def test_the_launch_that_is_offered_is_this_one_as_a_shell_takes_it(within, own):
    words = ("pipeline=own", "fleet=odd", "tags={team: a b}")
    done = within("plan", "--config-dir", str(own), *words)
    offered = (
        f"orchestrator launch --config-dir '{own}' pipeline=own fleet=odd 'tags={{team: a b}}'"
    )
    assert offered in done.stdout
    assert f"{offered} roles.train=small" in done.stdout


def test_replicas_on_several_nodes_are_told_with_those(within):
    words = ("pipeline=r2", "fleet=r2", "roles.serve=h800", "fallbacks.serve=[]")
    serve = "pipeline.stages.serve"
    spread = (f"{serve}.endpoint.engine=vllm", f"{serve}.needs.devices=16")
    twice = f"{serve}.endpoint.replicas=2"
    done = within("plan", *words, *spread, twice)
    assert "32 on 4 nodes" in " ".join(done.stdout.split()), done.stdout + done.stderr
    stages = json.loads(within("plan", *words, *spread, twice, "--json").stdout)["stages"]
    assert [(one["devices"], one["nodes_each"]) for one in stages][-1] == (32, 2)
    torn = within("plan", *words, spread[0], f"{serve}.needs.devices=12")
    assert "12 devices are no whole nodes of 'h800', which have 8 each" in torn.stderr


def test_weights_that_the_engine_widens_are_told_and_those_of_a_server_are_not(within):
    made = "pipeline.stages.export.params.format=int8"
    done = within("plan", "pipeline=r2", made)
    assert "'serve': its weights are stored as int8 and computed in bf16 or fp32" in done.stdout
    server = within("plan", "pipeline=r2", made, "pipeline.stages.serve.endpoint.engine=vllm")
    assert server.returncode == 0, server.stderr
    for other in (server, within("plan", "pipeline=r2")):
        assert "are stored as" not in other.stdout


def test_many_stages_are_named_by_the_first_of_them(within, own):
    stages = "\n".join(f"  s{n}: {{job: jobs.noop.noop, role: prepare}}" for n in range(60))
    (own / "pipeline" / "many.yaml").write_text(f"name: many\nstages:\n{stages}\n")
    done = within("plan", "--config-dir", str(own), "pipeline=many")
    assert "s23, and 36 more" in " ".join(done.stdout.split())


@pytest.mark.parametrize("address", ["nonsense", "auto", "ray://head:10001", "h:" + "9" * 5000])
def test_an_address_of_no_cluster_is_told_before_a_run_has_a_name(within, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    for verb in ("plan", "launch"):
        done = within(verb, "pipeline=noop", "tracking=none")
        assert done.returncode == 2
        assert done.stderr.startswith("error: RAY_ADDRESS: '")
        assert "Run " not in done.stdout
    assert within("plan", "pipeline=noop", "cluster=local").returncode == 0


@pytest.mark.parametrize("uri", ["http://[::1", "http://", "databricks", "http://h:99999"])
def test_an_address_of_no_tracker_is_told_before_a_run_has_a_name(within, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = within("launch", "pipeline=noop", "cluster=local")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: MLFLOW_TRACKING_URI: '{uri}' is not the address of an ")
    done = within("plan", "pipeline=noop", "tracking.uri=ftp://x")
    assert done.stderr.startswith("error: tracking.uri: 'ftp://x' is not the address")


def test_a_home_may_have_any_name(within, monkeypatch, tmp_path):
    home = tmp_path / "h\u00f6 me=x #%20?y"
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(home))
    done = within("launch", "pipeline=noop", "cluster=local", "tracking=none")
    assert done.returncode == 0, done.stderr
    assert (home / "events.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [home.name]
