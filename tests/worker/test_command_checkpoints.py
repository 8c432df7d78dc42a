"""The checkpoints that a command writes: adopted, fenced, and handed to the next attempt."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import FileEntry
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, Succeeded
from tests.worker.commands import first_line, gone, lines, python, request, said, training
from tests.worker.conftest import Bench


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


def test_all_workers_end_though_the_last_checkpoint_is_still_being_saved_then(
    bench: Bench,
) -> None:
    """The others have their parts already: they are told that nothing follows, too."""
    source = """if True:
        import glob, os, sys, time
        at = sys.argv[1] + "/checkpoint-4"
        os.makedirs(at)
        if os.environ["RANK"] == "0":
            open(at + "/trainer_state.json", "w").close()
        while not glob.glob(sys.argv[2]): time.sleep(0.01)
    """
    acknowledged = f"{bench.stored}/checkpoints/r2-1/train/acknowledged/*/1"
    words = python(source, "{checkpoints}", acknowledged)
    params = {"command": words, "checkpoints": {"layout": "huggingface"}}
    for messages in bench.together(request(bench, params, needs=Needs(workers=2))):
        assert isinstance(messages[-1], Succeeded), messages[-1]
    assert bench.sealed() == ["4-3-1"]


def test_a_worker_whose_command_outlives_the_last_checkpoint_waits_for_no_other(
    bench: Bench,
) -> None:
    """Word of the last goes once that is saved: whoever has heard it does not ask again."""
    source = """if True:
        import glob, os, sys, time
        folder, sealed, words = sys.argv[1:]
        if os.environ["RANK"] == "0":
            open(folder + "/4.pt", "w").close()
        else:
            while not os.path.exists(sealed): time.sleep(0.01)
            while glob.glob(words): time.sleep(0.01)
    """
    sealed = str(bench.folder_of(4) / "manifest.json")
    words = f"{bench.stored}/checkpoints/r2-1/train/acknowledged/*-last"
    params = {
        "command": python(source, "{checkpoints}", sealed, words),
        "checkpoints": {"pattern": "{step}.pt", "settle": 60.0},
    }
    for messages in bench.together(request(bench, params, needs=Needs(workers=2))):
        assert messages
        assert isinstance(messages[-1], Succeeded), messages[-1]
    assert bench.sealed() == ["4-3-1"]


class SlowStore(FsspecArtifactStore):
    """Shows that a checkpoint is about to be sealed, and waits a little before it is."""

    def seal(self, name: str, files: Mapping[str, FileEntry], meta: Mapping[str, str]) -> None:
        Path(self._base.removeprefix("file://"), "seals").touch()
        threading.Event().wait(2.0)
        super().seal(name, files, meta)


def test_a_command_that_has_ended_with_0_is_not_thrown_away_where_its_pool_is_emptied(
    bench: Bench,
) -> None:
    bench.store = SlowStore(str(bench.stored))
    bench.store.mark("checkpoints/r2-1/train/leave-1", "pool 'nvidia' is being emptied")
    write = "c={checkpoints}/checkpoint-STEP; mkdir $c; touch $c/trainer_state.json"
    two, four = (write.replace("STEP", step) for step in "24")
    waits = f"until [ -e {bench.stored}/seals ]; do sleep 0.01; done"
    params = {"command": f"{two}; {waits}; {four}", "checkpoints": {"layout": "huggingface"}}
    outcome = said(bench, params)[-1]
    assert isinstance(outcome, Succeeded), outcome
    assert bench.sealed() == ["2-3-1", "4-3-1"]


def test_ranks_that_one_process_starts_count_as_those_that_are_started_here(
    bench: Bench,
) -> None:
    fixed = {**training(), "checkpoints": {"layout": "huggingface", "reshard": False}}
    first = said(bench, fixed, needs=Needs(devices=8))
    assert isinstance(first[-1], Succeeded)
    outcome = said(bench, fixed, attempt=2, needs=Needs(devices=4))[-1]
    assert isinstance(outcome, Failed)
    assert "is of 8 processes, and there are 4 now" in outcome.failure.evidence
    same = said(bench, {**fixed, "processes": 8}, attempt=3, needs=Needs(devices=8))
    assert isinstance(same[-1], Succeeded)


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
        ({"layout": "lightning"}, "epoch=3-step=7.ckpt"),
        ({"pattern": "ckpt-{step}.pt", "settle": 0}, "ckpt-7.pt"),
    ],
    ids=["dcp", "megatron", "verl", "lightning", "file"],
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
    show = "cat {checkpoints}/latest_checkpointed_iteration.txt || true; echo; echo {checkpoint}"
    shown = {"command": show, "checkpoints": layout}
    *tracker, restored = lines(said(bench, shown, attempt=2))
    assert restored.endswith(f"/checkpoints/{written.split('/', maxsplit=1)[0]}")
    assert ("7" in tracker) == (layout.get("layout") in {"megatron", "verl"})


def test_a_file_that_names_the_newest_checkpoint_names_what_is_gone_on_from(bench: Bench) -> None:
    """As DeepSpeed's, which says `global_step500`."""
    deepspeed = {"checkpoints": {"layout": "deepspeed"}}
    write = "cd {checkpoints}; mkdir global_step7 global_step9; touch global_step{7,9}/model.pt"
    said(bench, {"command": f"{write}; echo -n global_step7 > latest; exit 3", **deepspeed})
    assert bench.checkpoints() == ["7-3-1"]
    show = {"command": "cd {checkpoints}; ls; cat latest; echo; echo {checkpoint}", **deepspeed}
    *shown, checkpoint = lines(said(bench, show, attempt=2))
    assert shown == ["global_step7", "latest", "global_step7"]
    assert checkpoint.endswith("/global_step7")


def test_two_attempts_write_two_folders_and_the_one_that_was_replaced_is_ended(
    bench: Bench,
) -> None:
    go = bench.folder.parent / "go"
    source = """if True:
        import os, sys, time
        folder, go = sys.argv[1:]
        print(os.getpid(), folder, flush=True)
        while not os.path.exists(go): time.sleep(0.05)
        os.makedirs(folder + "/checkpoint-9")
        open(folder + "/checkpoint-9/trainer_state.json", "w").close()
        time.sleep(20)
        os.rename(go, go + " outlived")
    """
    checkpoints = {"checkpoints": {"layout": "huggingface"}}
    waits = {"command": python(source, "{checkpoints}", str(go)), **checkpoints}
    older = bench.stream(request(bench, waits))
    pid, folder = first_line(older).split()
    newer = said(bench, {"command": ["echo", "{checkpoints}"], **checkpoints}, attempt=2)
    assert folder not in lines(newer)
    go.touch()
    outcome = [message for batch in older for message in batch][-1]
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.CANCELLED
    assert "attempt 1 of epoch 3 must not save any more" in outcome.failure.evidence
    assert gone(int(pid))
    assert go.exists()
    assert bench.checkpoints() == []


def test_a_checkpoint_of_another_number_of_processes_is_told_or_refused(bench: Bench) -> None:
    once = {**training(), "processes": 2}
    assert isinstance(said(bench, once)[-1], Succeeded)
    told = said(bench, training(), attempt=2)
    assert lines(told)[0] == "the checkpoint of step 6 is of 2 processes; there are 1 now"
    fixed = {**once["checkpoints"], "reshard": False}
    outcome = said(bench, {**training(), "checkpoints": fixed}, attempt=3)[-1]
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.SET_UP
    assert outcome.failure.evidence == (
        "the checkpoint of step 6 is of 2 processes, and there are 1 now; ask for 2, or set"
        " checkpoints.reshard where the script can take it"
    )
    same = said(bench, {**once, "checkpoints": fixed}, attempt=4)
    assert isinstance(same[-1], Succeeded)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("true", "the command has written nothing into {checkpoints}"),
        (
            "mkdir {checkpoints}/step_5 {checkpoints}/tb",
            "nothing in {checkpoints} fits 'step-{step}', but there is 'step_5', 'tb'",
        ),
        (
            "mkdir {checkpoints}/step_5; sleep 1; exit 4",
            "nothing in {checkpoints} fits 'step-{step}', but there is 'step_5'",
        ),
        (
            "mkdir {checkpoints}/step-5; exit 4",
            "'step-5' is not whole: it has no '.metadata'",
        ),
    ],
)
def test_why_no_checkpoint_is_saved_is_told(bench: Bench, command: str, told: str) -> None:
    settle = {"settle": 0.2} if "sleep" in command else {}
    messages = said(bench, {"command": command, "checkpoints": {"layout": "dcp", **settle}})
    (line,) = (line for line in lines(messages) if "no checkpoint" in line)
    assert line.partition(": ")[2] == told
