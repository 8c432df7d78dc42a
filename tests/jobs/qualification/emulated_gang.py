"""Workers of one real attempt on an emulated Ascend, forked after the imports, which take longest.

`python -m tests.jobs.qualification.emulated_gang SPEC`: the spec has `folder`, `rendezvous`,
`workers`, the job's `params` and the `emulation` of the pool. Each line that a worker logs is
printed, and how it ended where it failed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from orchestrator import wiring
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine
from tests.build import attempt_request
from tests.emulation.attempt import CHIP
from tests.jobs.qualification.forked_gang import fork_all


def main(spec: dict[str, Any]) -> int:
    """Run the job in all; return how many failed."""
    torch.set_num_threads(1)
    return fork_all(spec["workers"], lambda rank: _work(spec, rank))


def _work(spec: dict[str, Any], rank: int) -> int:
    asked = attempt_request(
        "gang",
        job="jobs.qualification.all_chips.qualify_gang",
        params=spec["params"],
        packages=("jobs",),
        storage=Path(spec["folder"]).as_uri(),
        seed=7,
        pool=Pool(
            name="ascend",
            accelerator=CHIP,
            devices_per_node=spec["workers"],
            emulation=TypeAdapter(Emulation).validate_python(spec["emulation"]),
        ),
        needs=Needs(workers=spec["workers"]),
    )
    failed = 0
    stream = wiring.run_worker(asked, rank=rank, rendezvous=spec["rendezvous"])
    for message in (message for batch in stream for message in batch):
        if isinstance(message, LogLine):
            print(message.text, flush=True)
        if isinstance(message, Failed):
            print(message.failure, file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
