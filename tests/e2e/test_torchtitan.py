"""torchtitan as a stage: breaks on one pool, goes on on another, and is served; torchrun judges.

By hand: `make torchtitan`. Or name the interpreter of another environment that has torchtitan, Ray
and this package by ORCHESTRATOR_TORCHTITAN_PYTHON, and run `python -m pytest -m torchtitan -s`.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from orchestrator.adapters.database import SqlDatabase
from orchestrator.service import runs
from tests.conftest import Workplace

ROOT = Path(__file__).parents[2]
NAMED = os.environ.get("ORCHESTRATOR_TORCHTITAN_PYTHON", "")  # noqa: TID251 - where torchtitan is
PYTHON = Path(NAMED or ROOT / ".venv-torchtitan" / "bin" / "python")
SECONDS = 2400.0
PORTS = ("gateway.port=18671", "gateway.metrics.port=18672")
POOLS = tuple(f"fleet.pools.{pool}.python={PYTHON}" for pool in ("ascend", "nvidia"))
FAULT = "{what: raise, signature: hccl_timeout, at_step: 25, stages: [train]}"
# transformers' own logits of a folder against those of torchtitan for its weights.
LOGITS = """
import sys

from jobs.torchtitan.cpu import mend

mend()

import torch
from safetensors.torch import load_file
from torchtitan.models.llama3 import model_registry
from transformers import AutoModelForCausalLM

(weights,), spec = map(load_file, sys.argv[2:]), model_registry("debugmodel")
model = spec.model.build()
model.load_state_dict(spec.state_dict_adapter(spec.model, sys.argv[1]).from_hf(weights))
theirs = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
tokens = torch.arange(64).remainder(300)[None]
torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)
"""

pytestmark = [
    pytest.mark.torchtitan,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: make torchtitan"),
]


@pytest.fixture(scope="module")
def launched(workplace: Workplace) -> Workplace:
    """A workplace whose run has ended, with a fault on pool `ascend` in training."""
    faults = f"fleet.pools.ascend.emulation.faults=[{FAULT}]"
    words = ("pipeline=torchtitan", "roles.train=ascend", "tracking=none", faults)
    done = workplace.run("launch", *words, *POOLS, *PORTS, seconds=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train: interconnect: falls back from ascend to nvidia" in done.stdout
    return workplace


def folder_with(workplace: Workplace, name: str, without: str = " ") -> Path:
    """Return the only artifact that has a file, and not another."""
    artifacts = workplace.folder / ".orchestrator" / "artifacts"
    folders = {path.parent for path in artifacts.rglob(name)}
    (folder,) = [folder for folder in folders if not any(folder.glob(without))]
    return folder


def trained(workplace: Workplace) -> Path:
    """Return the folder that the stage has left."""
    return folder_with(workplace, "model-00001-of-00001.safetensors", without="export.json")


def test_it_goes_on_on_the_other_pool_from_a_checkpoint_of_its_own(launched: Workplace) -> None:
    with closing(SqlDatabase(launched.folder / ".orchestrator/events.db")) as store:
        first, last = runs.load(store, store.runs(1)[0]).stages["train"].attempts
    assert (first.pool, last.pool) == ("ascend", "nvidia")
    assert (first.saved[-1], last.resumed) == (20, 20)
    assert "Loading the checkpoint from" in launched.logs()


def test_its_loss_and_its_weights_are_those_of_a_torchrun_that_nothing_breaks(
    launched: Workplace, tmp_path: Path
) -> None:
    said = by_torchrun(launched, tmp_path)
    ours = load_file(trained(launched) / "model-00001-of-00001.safetensors")
    theirs = load_file(tmp_path / "output" / "model-00001-of-00001.safetensors")
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=0)
    assert losses(launched.logs())[40] == losses(said)[40]


def losses(text: str) -> dict[int, str]:
    return {int(step): loss for step, loss in re.findall(r"step:\s*(\d+)\s+loss:\s*(\S+)", text)}


def by_torchrun(workplace: Workplace, folder: Path) -> str:
    """Run the command of the stage by torchrun alone; return what it has printed."""
    stage = yaml.safe_load((ROOT / "conf/pipeline/torchtitan.yaml").read_text())["stages"]["train"]
    names = {
        "output": folder / "output",
        "checkpoints": folder / "checkpoints",
        "inputs.data": folder_with(workplace, "dataset.json"),
        "inputs.assets": folder_with(workplace, "config.json", without="*.safetensors"),
        "seed": 0,
    }
    line = stage["command"]
    for name, value in names.items():
        line = line.replace(f"{{{name}}}", str(value))
    (folder / "output").mkdir()
    torchrun = (str(PYTHON), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    path = f"{PYTHON.parent}{os.pathsep}{workplace.environment['PATH']}"
    done = subprocess.run(
        (*torchrun, "--no-python", "bash", "-euo", "pipefail", "-c", line),
        cwd=folder,
        env={**workplace.environment, **stage["env"], "PATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_transformers_reads_from_its_folder_what_torchtitan_had_trained(
    launched: Workplace,
) -> None:
    folder = trained(launched)
    weights = folder / "model-00001-of-00001.safetensors"
    words = (str(PYTHON), "-c", LOGITS, str(folder), str(weights))
    environment = {**launched.environment, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_it_is_exported_passes_its_parity_gate_and_answers(launched: Workplace) -> None:
    with closing(SqlDatabase(launched.folder / ".orchestrator/events.db")) as store:
        stages = runs.load(store, store.runs(1)[0]).stages
    assert stages["parity"].state.value == "succeeded"
    asked = launched.run("ask", "What is 61 + 80?")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert asked.stdout.strip()
