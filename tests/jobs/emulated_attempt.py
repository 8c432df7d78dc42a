"""Workers of a real attempt on an emulated Ascend, forked after the imports: these take long."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from orchestrator import wiring
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, Message
from tests.build import attempt_request
from tests.emulation.attempt import CHIP
from tests.jobs.qualification.forked_gang import fork_all

LineOf = Callable[[int, Message], str | None]


def request_on_ascend(
    stage: str, workers: int, emulation: Emulation, **fields: object
) -> AttemptRequest:
    """Return the request for an attempt on all the chips of an emulated pool."""
    return attempt_request(
        stage,
        packages=("jobs",),
        seed=7,
        pool=Pool(name="ascend", accelerator=CHIP, devices_per_node=workers, emulation=emulation),
        needs=Needs(workers=workers),
        **fields,
    )


def run(request: AttemptRequest, rendezvous: str, line_of: LineOf) -> int:
    """Run all workers; print the line that is made of a message, and how workers failed.

    Return how many failed.
    """
    torch.set_num_threads(1)

    def work(rank: int) -> int:
        failed = 0
        stream = wiring.run_worker(request, rank=rank, rendezvous=rendezvous)
        for message in (message for batch in stream for message in batch):
            if (line := line_of(rank, message)) is not None:
                print(line, flush=True)
            if isinstance(message, Failed):
                print(message.failure, file=sys.stderr, flush=True)
                failed = 1
        return failed

    return fork_all(request.needs.workers, work)
