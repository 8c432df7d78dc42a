"""Stages that wait: for an approval, for a pool that is being emptied; and who says so."""

from __future__ import annotations

import json
import subprocess
import sys

from orchestrator.supervisor.record import wait

HERE = ("cluster=local", "tracking=none", "pipeline=noop")
GATED = "+pipeline.stages.noop.gate={kind: approval, target: the labels}"


def stage_of(workplace, run):
    listed = json.loads(workplace.run("status", run, "--json").stdout)
    return listed["stages"][0]


def test_a_stage_waits_for_its_approval_and_then_for_its_pool(workplace):
    words = [sys.executable, "-m", "orchestrator", "launch", *HERE, GATED]
    launched = subprocess.Popen(
        words, cwd=workplace.folder, env=workplace.environment, stdout=subprocess.PIPE, text=True
    )
    found = {}

    def at_its_gate():
        listed = json.loads(workplace.run("status", "--json").stdout)
        found.update(listed[0] if listed else {})
        return bool(found) and found["stages"][0]["waits_for"] != ""

    assert wait(at_its_gate, 30.0, tick=0.2)
    run = found["run"]
    assert found["stages"][0]["waits_for"] == "waits for approval 'the labels'"
    assert "waits for approval 'the labels'" in workplace.run("status", run).stdout
    assert workplace.run("pools", "drain", "nvidia", "--reason", "repair").returncode == 0
    assert "being emptied: repair" in workplace.run("pools").stdout
    assert (
        workplace.run("approve", run, "noop").stdout == f"Stage noop of run {run} is approved.\n"
    )
    held = "every pool is being emptied (repair)"
    assert wait(lambda: stage_of(workplace, run)["waits_for"] == held, 30.0, tick=0.2)
    assert workplace.run("pools", "undrain", "nvidia").returncode == 0
    out, _ = launched.communicate(timeout=60)
    assert launched.returncode == 0, out


def test_what_waits_for_no_approval_can_not_be_approved(workplace):
    assert workplace.run("launch", *HERE).returncode == 0
    newest = json.loads(workplace.run("status", "--json").stdout)[0]["run"]
    done = workplace.run("approve", newest, "noop")
    assert done.returncode == 102
    assert "stage 'noop' of run" in done.stderr
    assert "no stage of it does" in done.stderr


def test_a_pool_that_is_none_can_not_be_emptied(workplace):
    done = workplace.run("pools", "drain", "nvida")
    assert done.returncode == 102
    assert "'nvida' is not a pool of fleet 'local'; did you mean 'nvidia'?" in done.stderr
    done = workplace.run("pools", "drain")
    assert (done.returncode, done.stderr) == (
        2,
        "error: pools drain: no pool is named; pools drain NAME\n",
    )


def test_a_pool_is_not_drained_for_an_empty_reason_and_undrained_only_where_it_was(within) -> None:
    refused = within("pools", "drain", "ascend", "--reason", "")
    assert refused.returncode == 2
    assert "--reason: it is empty; say why, or leave it out" in refused.stderr
    said = within("pools", "undrain", "ascend").stdout
    assert said == "Pool ascend was not drained: it takes attempts.\n"
    assert within("pools", "drain", "ascend/a/../x").returncode
