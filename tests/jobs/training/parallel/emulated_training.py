"""Workers of one attempt on an emulated Ascend that train a model which is dealt out.

`python -m tests.jobs.training.parallel.emulated_training SPEC`: the spec is that of
`test_portability`, with `rendezvous` and `workers`. The first worker's points are printed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jobs.pretraining  # noqa: F401
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.spec.emulation import Emulation
from orchestrator.messages import Message, Points
from tests.jobs import emulated_attempt


def main(spec: dict[str, Any]) -> int:
    """Run the job in all; return how many failed."""
    request = emulated_attempt.request_on_ascend(
        "train",
        spec["workers"],
        Emulation(device="npu", backend="hccl"),
        job="jobs.pretraining.pretrain",
        params=spec["params"],
        inputs={"data": ArtifactRef(**spec["data"])},
        storage=spec["storage"],
    )
    return emulated_attempt.run(request, spec["rendezvous"], _points_of_first)


def _points_of_first(rank: int, message: Message) -> str | None:
    if isinstance(message, Points) and rank == 0:
        return json.dumps(dict(message.values))
    return None


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
