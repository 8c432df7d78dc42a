"""The script and the pipeline of the page of training run as they stand there; torchrun judges."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.run import Attempt
from orchestrator.service import runs
from tests.conftest import Workplace

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def block(language: str) -> str:
    """Return the first block of the page in a language."""
    match = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match
    return match[1]


@pytest.mark.ray
@pytest.mark.timeout(300)  # torchrun starts once more, by itself
def test_a_script_that_breaks_on_one_pool_ends_on_another_as_torchrun_ends_it(
    workplace: Workplace,
) -> None:
    code, config = workplace.folder / "code", workplace.folder / "my"
    (config / "pipeline").mkdir(parents=True)
    code.mkdir()
    (code / "train.py").write_text(block("python"))
    (config / "pipeline" / "own.yaml").write_text(block("yaml"))
    own = ("--config-dir", str(config), "pipeline=own", f"jobs.code=[{code}]")
    fault = "{what: raise, text: 'HcclAllreduce failed, error code 107020', at_step: 25}"
    done = workplace.run("launch", *own, f"+fleet.pools.nvidia.emulation.faults=[{fault}]")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train: interconnect: falls back from nvidia to ascend" in done.stdout
    first, last = attempts(workplace)
    assert first.saved[-1] >= 20, "the script runs on until its 25th step is heard of"
    assert last.resumed == first.saved[-1]
    (ours,) = (workplace.folder / ".orchestrator/artifacts").rglob("model.pt")
    theirs = by_torchrun(workplace.folder / "bare", code / "train.py")
    torch.testing.assert_close(torch.load(ours), torch.load(theirs), rtol=0, atol=0)


def attempts(workplace: Workplace) -> tuple[Attempt, ...]:
    """Return the attempts of the stage of the newest run."""
    with closing(SqlDatabase(workplace.folder / ".orchestrator/events.db")) as store:
        return runs.load(store, store.runs(1)[0]).stages["train"].attempts


def by_torchrun(folder: Path, script: Path) -> Path:
    """Train by torchrun alone, without a break; return the model."""
    output, checkpoints = folder / "output", folder / "checkpoints"
    output.mkdir(parents=True)
    checkpoints.mkdir()
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    words = (*torchrun, "--nproc-per-node=2", str(script), str(output), str(checkpoints))
    subprocess.run(words, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return output / "model.pt"
