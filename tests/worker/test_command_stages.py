"""A stage that is a command: any script, started as torchrun would, watched and carried on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest

from orchestrator import wiring
from orchestrator.adapters.clock import SystemClock
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, LogLine, Message, Points, Succeeded
from tests.worker.conftest import Bench

JOB = "jobs.commands.stage.run"
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
        time.sleep(3.0 if world != "1" else 0.7)
"""


def request(bench: Bench, params: dict[str, Any], **changes: Any) -> AttemptRequest:
    bench.clock = SystemClock()
    return bench.request(JOB, packages=("jobs",), params=params, **changes)


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


# --- what it is told, and what it says ----------------------------------------------------------


def test_each_process_has_its_place_as_torchrun_says_it(bench: Bench) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_PORT")
    source = f"import os; print([os.environ.get(n) for n in {names!r}][:5], flush=True)"
    told = lines(said(bench, {"command": python(source), "processes": 2}))
    assert sorted(told) == [
        "['0', '2', '0', '2', '0']",
        "['1', '2', '1', '2', '0']",
    ]


def test_names_in_its_words_are_filled_in_and_braces_of_others_stay(bench: Bench) -> None:
    words = "{pool.name} {pool.device} {pool.backend} {stage} {attempt} {seed} {x} {{}}"
    told = lines(said(bench, {"command": python("import sys; print(sys.argv[1])", words)}))
    assert told == ["nvidia cuda nccl train 1 7 {x} {{}}"]


def test_a_line_for_the_shell_is_one(bench: Bench) -> None:
    told = lines(said(bench, {"command": "for n in 1 2; do echo ${n}-{stage}; done | tail -1"}))
    assert told == ["2-train"]


def test_it_reads_its_inputs_and_what_it_leaves_is_the_artifact(bench: Bench) -> None:
    data = bench.artifact("data", {"rows": b"12"})
    command = "cp {inputs.data}/rows {output}/model && echo junk > here"
    messages = said(bench, {"command": command, "result": ["model"]}, inputs={"data": data})
    outcome = messages[-1]
    assert isinstance(outcome, Succeeded)
    assert outcome.artifact is not None
    stored = bench.store.fetch(outcome.artifact)
    assert [path.name for path in stored.iterdir() if path.name != "manifest.json"] == ["model"]
    assert bench.scratch() == []


def test_it_works_in_a_copy_of_its_code(bench: Bench) -> None:
    code = bench.folder / "own"
    code.mkdir(parents=True)
    (code / "train.py").write_text("open('made', 'w').write('x'); print('trained')")
    params = {"command": [sys.executable, "train.py"], "workdir": str(code)}
    assert lines(said(bench, params)) == ["trained"]
    assert [path.name for path in code.iterdir()] == ["train.py"]


def test_metrics_are_found_by_patterns_and_in_lines_of_json(bench: Bench) -> None:
    messages = said(bench, training())
    points = {
        m.step: dict(m.values) for m in messages if isinstance(m, Points) if "loss" in m.values
    }
    assert points[2] == {"loss": 0.5}
    assert isinstance(messages[-1], Succeeded)
    assert messages[-1].metrics == {"loss": 0.167}
    line = json.dumps({"step": 4, "loss": 0.25, "note": "x", "done": True})
    told = said(bench, {"command": ["echo", line]})
    assert [m.values for m in told if isinstance(m, Points)] == [{"loss": 0.25}]


# --- its checkpoints ----------------------------------------------------------------------------


def test_checkpoints_are_adopted_and_the_next_attempt_goes_on_from_one(bench: Bench) -> None:
    outcome = said(bench, training(breaks=5))[-1]
    assert isinstance(outcome, Failed)
    assert outcome.failure.step == 5
    assert bench.checkpoints() == ["2-3-1", "4-3-1"]
    again = said(bench, training(), attempt=2)
    assert isinstance(again[-1], Succeeded), again[-1]
    assert "begins at 4 of 1 parts" in lines(again)
    assert "step 4 loss 0.250" not in lines(again)
    assert bench.checkpoints()[-1] == "6-3-2"


def test_parts_of_all_workers_are_saved_once_rank_0_s_is_whole_and_come_back_together(
    bench: Bench,
) -> None:
    two = Needs(workers=2)
    for breaks, attempt in ((5, 1), (0, 2)):
        asked = request(bench, training(breaks), needs=two, attempt=attempt)
        told = bench.together(asked)
        if attempt == 1:
            assert all(isinstance(messages[-1], Failed) for messages in told)
            continue
        for messages in told:
            assert isinstance(messages[-1], Succeeded), messages[-1]
            assert "begins at 4 of 2 parts" in lines(messages)
    assert bench.checkpoints()[-1] == "6-3-2"


def test_what_is_half_written_when_it_dies_is_no_checkpoint(bench: Bench) -> None:
    dies = "mkdir {checkpoints}/checkpoint-2; echo x > {checkpoints}/checkpoint-2/w; kill -9 $$"
    params = {"command": dies, "checkpoints": {"layout": "huggingface"}}
    assert isinstance(said(bench, params)[-1], Failed)
    assert bench.checkpoints() == []


@pytest.mark.parametrize(
    ("layout", "written"),
    [
        ({"layout": "dcp"}, "step-7/.metadata"),
        ({"layout": "megatron"}, "iter_0000007/w"),
        ({"layout": "verl"}, "global_step_7/actor/w"),
        ({"pattern": "ckpt-{step}.pt", "settle": 0}, "ckpt-7.pt"),
    ],
    ids=["dcp", "megatron", "verl", "file"],
)
def test_what_frameworks_write_is_known(
    bench: Bench, layout: dict[str, Any], written: str
) -> None:
    command = (
        f'f={{checkpoints}}/{written}; mkdir -p "$(dirname $f)"; echo w > $f; '
        "echo 7 > {checkpoints}/latest_checkpointed_iteration.txt"
    )
    assert isinstance(said(bench, {"command": command, "checkpoints": layout})[-1], Succeeded)
    assert bench.checkpoints() == ["7-3-1"]
    show = "cat {checkpoints}/latest_checkpointed_iteration.txt || true; echo {checkpoint}"
    shown = {"command": show, "checkpoints": layout}
    *tracker, restored = lines(said(bench, shown, attempt=2))
    assert restored.endswith(f"/checkpoints/{written.split('/', maxsplit=1)[0]}")
    assert ("7" in tracker) == ("pattern" not in layout and layout["layout"] != "dcp")


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "kind", "told"),
    [
        ({"command": ["no-such"]}, FailureKind.SET_UP, "command 'no-such' can't be run: No such"),
        ({"command": ["sh", "-c", "echo so; exit 3"]}, FailureKind.UNKNOWN, "ended with 3: so"),
        ({"command": "exec no-such"}, FailureKind.SET_UP, "ended with 127"),
        ({"command": "kill -9 $$"}, FailureKind.WORKER_LOST, "was ended by signal 9"),
        ({"command": "kill -SEGV $$"}, FailureKind.SOFTWARE, "was ended by signal 11"),
        (
            {"command": "true", "result": ["model/*.safetensors"]},
            FailureKind.USER_CODE,
            "left no 'model/*.safetensors' in {output}; write it there",
        ),
        ({"command": ["sh", "-c", "{inputs.no}"]}, FailureKind.USER_CODE, "{inputs.no} in"),
        ({"command": ""}, FailureKind.USER_CODE, "the command is empty"),
        ({"command": "true", "workdir": "no"}, FailureKind.USER_CODE, "workdir 'no' is no folder"),
        (
            {"command": "true", "checkpoints": {"layout": "no"}},
            FailureKind.USER_CODE,
            "layout 'no' is not known; there are: dcp, huggingface, megatron, verl",
        ),
        (
            {"command": "true", "checkpoints": {"pattern": "ckpt"}},
            FailureKind.USER_CODE,
            "pattern 'ckpt' names no checkpoints; write a path below",
        ),
        (
            {"command": "true", "metrics": ["("]},
            FailureKind.USER_CODE,
            "'(' is no regular expression",
        ),
        (
            {"command": "true", "metrics": ["loss (?P<loss>.*)"]},
            FailureKind.USER_CODE,
            "finds no metrics of a step",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_how_it_ends_is_told_in_a_line_of_the_right_kind(
    bench: Bench, params: dict[str, Any], kind: FailureKind, told: str
) -> None:
    signatures = tuple(wiring.settings(["pipeline=noop"]).signatures.values())
    outcome = said(bench, params, signatures=signatures)[-1]
    assert isinstance(outcome, Failed)
    assert told in outcome.failure.evidence
    assert outcome.failure.kind is kind
    assert bench.scratch() == []


def test_what_is_no_utf_8_is_shown_and_what_has_no_end_of_line_too(bench: Bench) -> None:
    assert lines(said(bench, {"command": r"printf '\xff\xfe\nrest'"})) == ["\ufffd\ufffd", "rest"]


def test_a_flood_of_lines_costs_lines_and_not_the_run(bench: Bench) -> None:
    messages = said(bench, {"command": "seq 1000000"})
    assert isinstance(messages[-1], Succeeded)
    assert len(lines(messages)) <= 1_000_000


def test_what_it_has_forked_ends_with_it(bench: Bench) -> None:
    told = lines(said(bench, {"command": "sleep 300 > /dev/null 2>&1 & echo $!"}))
    assert gone(int(told[-1]))


def test_a_command_is_asked_to_end_and_killed_where_it_does_not(
    bench: Bench, until: Callable[[Callable[[], bool]], None]
) -> None:
    stubborn = "trap 'echo asked > {output}/asked' TERM; echo $$; while true; do sleep 0.1; done"
    asked = replace(request(bench, {"command": stubborn, "grace": 1.0}), kill_after=10.0)
    stream = bench.stream(asked)
    told = first_line(stream)
    stream.close()  # type: ignore[attr-defined]
    assert gone(int(told))
    until(lambda: bench.scratch() == [])


def first_line(stream: Iterator[Any]) -> str:
    for batch in stream:
        for message in batch:
            if isinstance(message, LogLine):
                return message.text
    raise AssertionError("it said nothing")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
