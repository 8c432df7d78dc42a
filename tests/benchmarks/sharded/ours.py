"""A worker of an attempt of our job: `python -m tests.benchmarks.sharded.ours SPEC RANK`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from statistics import median

from orchestrator import wiring
from orchestrator.adapters.torch_process_group import open_process_group
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, LogLine, Message, Points
from orchestrator.worker import rank_environment
from orchestrator.worker.attempt import stream
from tests.benchmarks.sharded.sizes import (
    BETA2,
    CLIP,
    DECAY,
    RATE,
    SIZES,
    Measured,
    Size,
    peak_bytes,
)
from tests.build import attempt_request


def main(spec: str, rank: str) -> None:
    """Run the worker to its end.

    Raises:
        RuntimeError: The attempt has failed.
    """
    given = json.loads(spec)
    size, storage = SIZES[given["size"]], given["storage"]
    request = attempt_request(
        run=given["run"],
        job=given["job"],
        params=given["params"],
        packages=("jobs",),
        inputs={"data": ArtifactRef(**given["data"])},
        storage=storage,
        needs=Needs(workers=given["workers"]),
    )
    ends, stalls = dict[int, float](), list[float]()
    for message in _messages(request, int(rank), given["rendezvous"]):
        if isinstance(message, Failed):
            raise RuntimeError(message.failure.evidence)  # noqa: TRY004 - no type is wrong
        if isinstance(message, LogLine) and message.text.startswith('{"seconds"'):
            print(message.text, flush=True)  # of a command, which measures itself
        if isinstance(message, Points) and "train/loss" in message.values:
            ends[message.step] = message.at
            stalls.append(message.values.get("step/checkpoint_seconds", 0.0))
    if given["workers"] > 1:
        seconds = max(ends.values()) - ends[size.warm] if ends else 0.0  # the first one has points
        saves = [seconds for seconds in stalls if seconds > 0.0][1:]
        Measured(seconds, peak_bytes(), median(saves) if saves else 0.0).tell()


def _messages(request: AttemptRequest, rank: int, rendezvous: str) -> Iterator[Message]:
    """Yield what a worker says, with the variables of its place."""
    variables = rank_environment.variables(request, rank, rendezvous)
    with rank_environment.applied(variables):
        for batch in stream(
            request,
            rank=rank,
            rendezvous=rendezvous,
            store=wiring.artifact_store(request.storage),
            clock=wiring.clock(),
            process_group=open_process_group,
        ):
            yield from batch


def params(size: Size, *, saves: int = 0) -> dict[str, object]:
    """Return the parameters of our job, which saves so many checkpoints."""
    return {
        "model": size.llama,
        "rows": {"sequence": size.sequence, "documents": "joined", "packing": "cut"},
        "parallel": {"shard": 2},
        "steps": 2 * saves + 2 if saves else size.steps,
        "batch_size": 2 * size.rows,
        "learning_rate": RATE,
        "weight_decay": DECAY,
        "beta2": BETA2,
        "clip": CLIP,
        "warmup": 1,
        "precision": "fp32",
        "log_every": 1,
        "validate_every": 0,
        "checkpoint_every": 2 if saves else 0,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
