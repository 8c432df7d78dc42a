"""`orchestrator qualify` keeps a verdict, and what follows from it for a plan and a launch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Workplace, assert_refused

MINE = """
import json

def make(ctx):
    fields = {"model_type": "gpt2", "n_embd": 48, "transformers_version": "5", "_secret": 1}
    (ctx.output / "config.json").write_text(json.dumps(fields))

def check(ctx, *, status="passed", broken="", architecture="", model=None, **_):
    if broken:
        raise RuntimeError(broken)
    note = f"{architecture} of {model}" if model else "missing"
    finding = {"check": "operators", "subject": "aten::silu", "status": status, "note": note}
    told = {"findings": [{**finding, "roles": ["train"]}]}
    (ctx.output / "report.json").write_text(json.dumps(told))

def train(ctx):
    return {}
"""
HERE = ("cluster=local", "tracking=none", "jobs.packages=[mine]", "jobs.code=[.]")
POOL = ("fleet.pools.nvidia.devices_per_node=1",)
CHECKS = tuple(
    f"pipeline.stages.{stage}.job=mine.check" for stage in ("reference", "nodes", "gang")
)
NODES = "pipeline.stages.nodes.params"
TRAIN = ("pipeline=noop", "pipeline.stages.noop.job=mine.train", "pipeline.stages.noop.role=train")
NEEDS = ("pipeline.stages.noop.needs={workers: 1, devices: 1, cpus: 1}", "fallbacks.train=[]")


class WorkingFolder:
    """A working folder with jobs of its own, which find what they are told to find."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        (folder / "mine.py").write_text(MINE)
        self.folder = folder
        self.run = Workplace(folder, environment).run

    def qualify(self, *words: str):
        return self.run("qualify", "nvidia", *HERE, *POOL, *CHECKS, *words)

    def pools(self, *words: str):
        told = json.loads(self.run("pools", "--json", *words).stdout)
        return {one["pool"]: one["qualified"] for one in told}


@pytest.fixture
def desk(tmp_path: Path, environment: dict[str, str]) -> WorkingFolder:
    return WorkingFolder(tmp_path, environment)


@pytest.fixture(scope="module")
def refused(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> WorkingFolder:
    """A folder in which pool `nvidia` was refused for training."""
    made = WorkingFolder(tmp_path_factory.mktemp("refused"), environment)
    done = made.qualify(f"{NODES}.status=failed")
    assert done.returncode == 100, done.stdout + done.stderr
    assert "operators aten::silu: missing" in done.stdout
    return made


def test_a_pool_without_a_flaw_is_qualified_and_pools_shows_it(desk: WorkingFolder) -> None:
    done = desk.qualify("--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    known = desk.pools(*POOL)
    assert {role: one["verdict"] for role, one in known["nvidia"].items()} == {
        "train": "qualified",
        "serve": "qualified",
    }
    assert known["ascend"] == {}
    assert desk.pools()["nvidia"] == {}, "a pool of two chips is another one"
    assert json.loads(desk.run("status", "--json").stdout)[0]["pipeline"] == "qualify"


def test_a_refused_pool_is_used_by_no_launch_but_by_name(refused: WorkingFolder) -> None:
    launch = (*HERE, *POOL, *TRAIN, *NEEDS)
    planned = refused.run("plan", *launch)
    assert planned.returncode == 0
    assert (
        "A launch is refused: roles.train: pool 'nvidia' was refused for train" in planned.stdout
    )
    done = refused.run("launch", *launch)
    assert done.returncode == 2
    assert "operators aten::silu: missing; `orchestrator qualify nvidia`" in done.stderr
    used = refused.run("launch", "--unqualified", *launch)
    assert used.returncode == 0, used.stdout + used.stderr


def test_a_refused_fallback_is_left_out(refused: WorkingFolder) -> None:
    bound = ("roles.train=ascend", "fallbacks.train=[nvidia]")
    words = (*HERE, *POOL, *TRAIN, NEEDS[0], *bound)
    done = refused.run("launch", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no fallback: pool 'nvidia' was refused for train" in done.stdout


def test_a_gap_that_serving_does_not_need_leaves_it_qualified(refused: WorkingFolder) -> None:
    known = refused.pools(*POOL)["nvidia"]
    assert known["train"]["verdict"] == "refused"
    assert known["serve"]["verdict"] == "qualified"
    assert "train refused, serve" in refused.run("pools", *POOL).stdout


GOES_ON = {
    "checkpoint": {"job": "mine.make", "role": "prepare", "needs": {"devices": 0}},
    "train": {"job": "mine.train", "role": "train", "inputs": {"model": "checkpoint"}},
}


@pytest.mark.parametrize("stages", [GOES_ON, {"train": {"job": "mine.make", "role": "train"}}])
def test_a_model_that_no_parameter_tells_is_read_where_a_run_has_made_it(
    desk: WorkingFolder, stages: dict[str, object]
) -> None:
    folder = desk.folder
    (folder / "conf/pipeline").mkdir(parents=True)
    text = json.dumps({"name": "goes-on", "stages": stages})
    (folder / "conf/pipeline/goes_on.yaml").write_text(text)
    flags = ("--config-dir", "conf", "--model-of", "goes_on", f"{NODES}.status=limited")
    done = desk.qualify(*flags)
    assert done.returncode == 102, done.stdout + done.stderr
    said = "no stage of pipeline 'goes_on' says which model it trains ('train')"
    assert said in done.stderr
    assert "`orchestrator launch pipeline=goes_on` makes one that is read" in done.stderr
    launch = ("launch", "--config-dir", "conf", "pipeline=goes_on", *HERE, *POOL)
    made = desk.run(*launch, "fallbacks.train=[]")
    assert made.returncode == 0, made.stdout + made.stderr
    done = desk.qualify(*flags)
    assert done.returncode == 0, done.stdout + done.stderr
    released = {"model_type": "gpt2", "n_embd": 48}
    assert f"operators aten::silu: gpt2 of {released}" in done.stdout


def test_what_breaks_an_attempt_refuses_the_pool(desk: WorkingFolder) -> None:
    done = desk.qualify(f"{NODES}.broken='NPU out of memory'", "--role", "serve")
    assert done.returncode == 100
    assert "nodes out_of_memory: RuntimeError: NPU out of memory (rank 0)" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("qualify",), 2, "no pool is named"),
        (("qualify", "nvidia", "--model-of", "noop"), 2, "trains no model; name one with a stage"),
        *(
            (("qualify", "nvidia", "--model-of", name), 102, f"no stage of pipeline '{name}' says")
            for name in ("torchtitan", "megatron")
        ),
        (("qualify", "nvidia", "--soak", "-3"), 2, "'-3' is no number of seconds"),
        (("qualify", "nvida"), 102, "did you mean 'nvidia'?"),
        (("qualify", "host", "fleet=r2"), 2, "pool 'host' has no chips"),
        (("qualify", "s5000", "--role", "train", "fleet=r2"), 2, "roles that it takes: serve"),
        (("launch", "pipeline=deepseek_r1", "fleet=r2"), 2, "'h800' is not qualified for train"),
    ],
)
def test_a_mistake_gets_one_line(within, words, code, line):
    assert_refused(within(*words), code, line)


def test_overrides_may_stand_after_a_flag(orchestrator):
    told = orchestrator("plan", "pipeline=noop", "--json", "seed=3")
    assert json.loads(told.stdout)["pipeline"] == "noop"
