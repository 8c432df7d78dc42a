"""Workers of one attempt on an emulated Ascend that train a model which is dealt out.

`python -m tests.jobs.training.parallel.emulated_training SPEC`: the spec is that of
`test_portability`, with `rendezvous` and `workers`. The first worker's points are printed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch._dynamo
import transformers.models.llama.modeling_llama  # noqa: F401

import jobs.pretraining  # noqa: F401
from orchestrator import wiring
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, Points
from tests.build import attempt_request
from tests.emulation.attempt import CHIP
from tests.jobs.qualification.forked_gang import fork_all


def main(spec: dict[str, Any]) -> int:
    """Run the job in all; return how many failed."""
    torch.set_num_threads(1)
    return fork_all(spec["workers"], lambda rank: _work(spec, rank))


def _work(spec: dict[str, Any], rank: int) -> int:
    asked = attempt_request(
        "train",
        job="jobs.pretraining.pretrain",
        params=spec["params"],
        packages=("jobs",),
        inputs={"data": ArtifactRef(**spec["data"])},
        storage=spec["storage"],
        seed=7,
        pool=Pool(
            name="ascend",
            accelerator=CHIP,
            devices_per_node=spec["workers"],
            emulation=Emulation(device="npu", backend="hccl"),
        ),
        needs=Needs(workers=spec["workers"]),
    )
    failed = 0
    stream = wiring.run_worker(asked, rank=rank, rendezvous=spec["rendezvous"])
    for message in (message for batch in stream for message in batch):
        if isinstance(message, Points) and rank == 0:
            print(json.dumps(dict(message.values)), flush=True)
        if isinstance(message, Failed):
            print(message.failure, file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
