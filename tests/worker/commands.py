"""Stages that are a command, as tests run them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import psutil

from orchestrator.adapters.clock import SystemClock
from orchestrator.core.spec.command_stages import JOB, spread_layout
from orchestrator.messages import AttemptRequest, LogLine, Message
from tests.worker.conftest import Bench

# Saves a folder each second step, goes on from it, and breaks where it is told.
TRAIN = """
import os, sys, time
from pathlib import Path
folder, breaks = Path(sys.argv[1]), int(sys.argv[2])
begin = int(Path(sys.argv[3], "step").read_text()) if sys.argv[3:] else 0
rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
print("begins at", begin, "of", len(list(folder.glob("*/part-*"))), "parts", flush=True)
for step in range(begin + 1, 7):
    print(f"step {step} loss {1 / step:.3f}", flush=True)
    if step == breaks:
        sys.exit(3)
    if step % 2 == 0:
        at = folder / f"checkpoint-{step}"
        at.mkdir(parents=True, exist_ok=True)
        (at / f"part-{rank}").write_text(rank)
        (at / "step").write_text(str(step))
        if rank == "0":
            (at / "trainer_state.json").write_text("{}")
        time.sleep(3.0 if world != "1" else 1.5)
"""


def request(bench: Bench, params: dict[str, Any], **changes: Any) -> AttemptRequest:
    bench.clock = SystemClock()
    spread = {key: spread_layout(value) for key, value in params.items() if key == "checkpoints"}
    return bench.request(JOB, packages=("jobs",), params={**params, **spread}, **changes)


def said(bench: Bench, params: dict[str, Any], **changes: Any) -> list[Message]:
    stream = bench.stream(request(bench, params, **changes))
    return [message for batch in stream for message in batch]


def lines(messages: list[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, LogLine)]


def python(source: str, *more: str) -> list[str]:
    return [sys.executable, "-c", source, *more]


def training(breaks: int = 0) -> dict[str, Any]:
    return {
        "command": python(TRAIN, "{checkpoints}", str(breaks)),
        "resume": ["{checkpoint}"],
        "checkpoints": {"layout": "huggingface"},
        "metrics": [r"step (?P<step>\d+) loss (?P<loss>\S+)"],
    }


def first_line(stream: Iterator[Any]) -> str:
    for batch in stream:
        for message in batch:
            if isinstance(message, LogLine):
                return message.text
    raise AssertionError("it said nothing")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
