"""Scripts of the page of training, killed and moved: what torchrun makes of them is the judge.

By hand: `make chaos`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.run import Attempt
from orchestrator.service import runs
from tests.conftest import Workplace

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
PLAIN, TRAINER = BLOCKS[:2], BLOCKS[2:4]
KILLS, PROCESSES = 10, 2
STEPS = 400
SLOWLY = "    __import__('time').sleep(0.1)\n    rows = "
SECONDS = 1800.0
FAULT = "{what: raise, signature: hccl_timeout, at_step: 25, stages: [train]}"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]


def prepare(
    workplace: Workplace, name: str, scripts: dict[str, str], pipeline: str
) -> tuple[str, ...]:
    """Write scripts and their pipeline `name`; return the words that launch it."""
    code, config = workplace.folder / name, workplace.folder / f"{name}-config"
    (config / "pipeline").mkdir(parents=True)
    code.mkdir()
    for script, text in scripts.items():
        (code / script).write_text(text)
    (config / "pipeline" / f"{name}.yaml").write_text(pipeline)
    return ("--config-dir", str(config), f"pipeline={name}", f"jobs.code=[{code}]")


def attempts(workplace: Workplace) -> tuple[Attempt, ...]:
    """Return the attempts at training of the newest run."""
    with closing(SqlDatabase(workplace.folder / ".orchestrator/events.db")) as store:
        return runs.load(store, store.runs(1)[0]).stages["train"].attempts


def by_torchrun(folder: Path, script: Path, *before: str) -> Path:
    """Train by torchrun alone, without a break; return the folder that it has filled."""
    output, checkpoints = folder / "output", folder / "checkpoints"
    output.mkdir(parents=True)
    checkpoints.mkdir()
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    words = ("--nproc-per-node=2", str(script), *before, str(output), str(checkpoints))
    subprocess.run((*torchrun, *words), check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
    return output


def ranks(script: str) -> dict[int, Path]:
    """Return the processes of the command that run a script, and where their checkpoints are."""
    running: dict[int, Path] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if script in process.cmdline() and "torch.distributed.run" not in process.cmdline():
                running[process.pid] = Path(process.cwd()).parent / "checkpoints"
    return running


def newest(checkpoints: Path) -> int:
    """Return the step of the newest checkpoint in a folder, 0 where there is none."""
    return max((int(path.name.split("-")[1]) for path in checkpoints.glob("*-*")), default=0)


@contextmanager
def killing(script: str) -> Iterator[list[int]]:
    """Kill a process of the command each time that it has written a checkpoint; yield whom."""
    over = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        reached = 0
        while len(killed) < KILLS and not over.wait(0.1):
            running = ranks(script)
            steps = max((newest(folder) for folder in running.values()), default=0)
            if len(running) < PROCESSES or steps <= reached or running.keys() & set(killed):
                continue
            over.wait(0.3 * (len(killed) % 4))  # while it is adopted, and after that
            reached, victim = steps, sorted(running)[len(killed) % PROCESSES]
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield killed
    over.set()
    thread.join()


def test_a_script_whose_processes_are_killed_ten_times_ends_as_one_that_nobody_kills(
    workplace: Workplace,
) -> None:
    (_, script), (_, pipeline) = PLAIN
    longer = script.replace(", 41)", f", {STEPS + 1})").replace("    rows = ", SLOWLY)
    name = f"killed_{os.getpid()}.py"
    words = prepare(workplace, "own", {name: longer}, pipeline.replace("train.py", name))
    with killing(name) as killed:
        done = workplace.run("launch", *words, "tracking=none", seconds=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(killed) == KILLS
    assert len(attempts(workplace)) == KILLS + 1
    (ours,) = (workplace.folder / ".orchestrator/artifacts").rglob("model.pt")
    theirs = by_torchrun(workplace.folder / "bare", workplace.folder / "own" / name) / "model.pt"
    torch.testing.assert_close(torch.load(ours), torch.load(theirs), rtol=0, atol=0)


def test_a_trainer_of_hugging_face_that_breaks_ends_elsewhere_as_torchrun_ends_it_and_is_served(
    workplace: Workplace,
) -> None:
    (_, script), (_, pipeline) = TRAINER
    words = prepare(workplace, "trainer", {"train_hf.py": script}, pipeline)
    faults = ("roles.train=ascend", f"fleet.pools.ascend.emulation.faults=[{FAULT}]")
    ports = ("gateway.port=18673", "gateway.metrics.port=18674", "tracking=none")
    done = workplace.run("launch", *words, *faults, *ports, seconds=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    first, last = attempts(workplace)
    assert (first.pool, last.pool) == ("ascend", "nvidia")
    assert (first.saved[-1], last.resumed) == (20, 20)
    assert workplace.run("ask", "What is 61 + 80?").stdout.strip()
    artifacts = workplace.folder / ".orchestrator/artifacts"
    (data,) = (path.parent for path in artifacts.rglob("dataset.json"))
    (ours,) = (path.parent for path in artifacts.rglob("training_args.bin"))
    bare = by_torchrun(
        workplace.folder / "bare-trainer", workplace.folder / "trainer/train_hf.py", str(data)
    )
    theirs = load_file(bare / "model.safetensors")
    for name, weight in load_file(ours / "model.safetensors").items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=0)
