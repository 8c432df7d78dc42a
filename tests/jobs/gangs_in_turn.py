"""Runs attempts of a stage one after the other, each a gang of processes over gloo.

`python gangs_in_turn.py SPEC`: the spec has the storage, the request's facts, and the number of
workers of each attempt. All but the last are asked to leave after their first checkpoint. What
each worker says is printed as JSON, a line a message.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch._dynamo
import transformers.models.llama.modeling_llama  # noqa: F401

import jobs.pretraining  # noqa: F401
from orchestrator import wiring
from orchestrator.adapters.torch_process_group import open_process_group
from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.spec.stages import Needs
from orchestrator.supervisor.record import wait
from orchestrator.worker.attempt import stream
from tests.build import attempt_request
from tests.ports import free_address

SECONDS_TO_END = 5.0


def main(spec: Mapping[str, Any]) -> None:
    """Run all attempts, each worker in a process of its own."""
    torch.set_num_threads(1)
    for attempt, size in enumerate(spec["sizes"], 1):
        ask_to_leave(spec, attempt)
        address = free_address()
        workers = [_fork(spec, attempt, rank, address) for rank in range(size)]
        first, _ = os.wait()
        _end([worker for worker in workers if worker != first])


def ask_to_leave(spec: Mapping[str, Any], attempt: int) -> None:
    """Have an attempt leave after its first checkpoint, if it isn't the last one."""
    if attempt < len(spec["sizes"]):
        store = wiring.artifact_store(spec["storage"])
        store.mark(artifact_paths.leaving("run", "train", attempt), "pool 'a' is being emptied")


def worker(
    spec: Mapping[str, Any], attempt: int, rank: int, address: str | None
) -> Iterator[dict[str, Any]]:
    """Run worker `rank` of an attempt; yield what it says."""
    request = attempt_request(
        attempt=attempt,
        job="jobs.pretraining.pretrain",
        params=spec["params"],
        packages=("jobs",),
        inputs={"data": ArtifactRef(**spec["data"])},
        storage=spec["storage"],
        seed=7,
        needs=Needs(workers=spec["sizes"][attempt - 1]),
    )
    for batch in stream(
        request,
        rank=rank,
        rendezvous=address,
        store=wiring.artifact_store(spec["storage"]),
        clock=wiring.clock(),
        process_group=open_process_group,
    ):
        for message in batch:
            told = {"attempt": attempt, "rank": rank, "kind": type(message).__name__}
            yield {**told, **asdict(message)}


def _fork(spec: Mapping[str, Any], attempt: int, rank: int, address: str) -> int:
    child = os.fork()
    if child:
        return child
    try:
        for told in worker(spec, attempt, rank, address):
            os.write(1, f"{json.dumps(told, default=str)}\n".encode())
    finally:
        os._exit(0)


def _end(workers: Sequence[int]) -> None:
    """Let the others end, or end them as the cluster does: gloo may wait for a lost peer."""
    left = set(workers)

    def gone() -> bool:
        left.difference_update([pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]])
        return not left

    if not wait(gone, SECONDS_TO_END):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
