"""Workers of real attempts; run as a script it is one of a gang."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator import wiring
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Accelerator, Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, Points
from tests.adapters.test_torch_process_group import free_address
from tests.build import attempt_request

ROOT = Path(__file__).parents[2]
CHIP = Accelerator(
    name="Ascend 910C",
    vendor="huawei",
    device="npu",
    backend="hccl",
    reduces=("int8", "int16", "int32", "int64", "float16", "bfloat16", "float32"),
)


@dataclass(frozen=True, slots=True)
class Told:
    """The losses of a worker by step, and how it ended."""

    losses: dict[int, float]
    failure: dict[str, Any] | None


def asked(
    folder: Path, data: Path, emulation: dict[str, Any], params: dict[str, Any], **gang: Any
) -> dict[str, Any]:
    """Return what a worker is told: to train on an emulated Ascend pool."""
    alone = {"workers": 1, "rank": 0, "rendezvous": None, "job": "jobs.pretraining.pretrain"}
    what = {"emulation": emulation, "params": params, **alone, **gang}
    return {"folder": str(folder), "data": str(data), **what}


def told(found: dict[str, Any]) -> Told:
    """Return what a worker answered."""
    losses = {int(step): loss for step, loss in found["losses"].items()}
    return Told(losses, found["failure"])


def gang(
    folder: Path, data: Path, emulation: dict[str, Any], params: dict[str, Any], **job: str
) -> list[Told]:
    """Train with two processes, or do another `job`; return what each answered."""
    common = {"workers": 2, "rendezvous": free_address(), **job}
    words = [
        json.dumps(asked(folder, data, emulation, params, **common, rank=rank))
        for rank in range(2)
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.emulation.attempt", word],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for word in words
    ]
    outputs = [worker.communicate(timeout=280) for worker in started]
    assert all(out for out, _ in outputs), outputs
    return [told(json.loads(out.strip().splitlines()[-1])) for out, _ in outputs]


def run(what: dict[str, Any]) -> dict[str, Any]:
    """Run as one worker, as `wiring.run_worker` does; return losses and failure."""
    losses: dict[int, float] = {}
    failure = None
    stream = wiring.run_worker(_request(what), rank=what["rank"], rendezvous=what["rendezvous"])
    for message in (message for batch in stream for message in batch):
        if isinstance(message, Points) and "train/loss" in message.values:
            losses[message.step] = message.values["train/loss"]
        if isinstance(message, Failed):
            failure = {**asdict(message.failure), "kind": str(message.failure.kind)}
    return {"losses": losses, "failure": failure}


def _request(what: dict[str, Any]) -> AttemptRequest:
    emulation = TypeAdapter(Emulation).validate_python(what["emulation"])
    return attempt_request(
        "pretrain",
        job=what["job"],
        params=what["params"],
        packages=("jobs",),
        inputs={"data": _stored(Path(what["folder"]), Path(what["data"]), what["rank"])},
        storage=Path(what["folder"]).as_uri(),
        seed=7,
        pool=Pool(name="ascend", accelerator=CHIP, devices_per_node=2, emulation=emulation),
        needs=Needs(workers=what["workers"]),
        signatures=tuple(wiring.settings(["pipeline=r2"]).signatures.values()),
    )


def _stored(folder: Path, data: Path, rank: int) -> ArtifactRef:
    """Put the data into the store, each worker under a name of its own."""
    store = wiring.artifact_store(folder.as_uri())
    scratch = store.scratch(f"data-{rank}")
    shutil.copytree(data, scratch, dirs_exist_ok=True)
    return store.commit(scratch, f"data-{rank}", {})


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
