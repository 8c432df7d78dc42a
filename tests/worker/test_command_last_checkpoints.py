"""What a command wrote just before it broke, hung or was ended is adopted before that is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import AttemptSettings
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, Message, Saved, Succeeded
from tests.worker.commands import first_line, gone, lines, python, request, said
from tests.worker.conftest import Bench

HUGGINGFACE = {"layout": "huggingface"}
WHOLE = "c={checkpoints}/checkpoint-STEP; mkdir $c; touch $c/weights $c/trainer_state.json"
MUCH_LONGER = 60.0  # than half a second, on any machine
HALF = "c={checkpoints}/checkpoint-STEP; mkdir $c; touch $c/weights"


def whole(step: int) -> str:
    return WHOLE.replace("STEP", str(step))


def half(step: int) -> str:
    return HALF.replace("STEP", str(step))


def kinds(messages: Sequence[Message]) -> list[type[Message]]:
    return [type(message) for message in messages if isinstance(message, Saved | Failed)]


def failure(messages: Sequence[Message]) -> Failed:
    outcome = messages[-1]
    assert isinstance(outcome, Failed), outcome
    return outcome


# --- of a command that fails --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$", "kill -SEGV $$"])
def test_what_is_whole_is_saved_before_the_failure_is_told(bench: Bench, end: str) -> None:
    messages = said(bench, {"command": f"{whole(7)}; {end}", "checkpoints": HUGGINGFACE})
    assert bench.sealed() == ["7-3-1"]
    assert kinds(messages) == [Saved, Failed]
    again = said(bench, {"command": "ls {checkpoint}", "checkpoints": HUGGINGFACE}, attempt=2)
    assert lines(again) == ["trainer_state.json", "weights"]


@pytest.mark.parametrize(
    ("layout", "written"),
    [
        ({"layout": "dcp"}, "mkdir {checkpoints}/step-7; touch {checkpoints}/step-7/.metadata"),
        (
            {"layout": "megatron"},
            "cd {checkpoints}; mkdir iter_0000007; echo 7 > latest_checkpointed_iteration.txt",
        ),
        ({"pattern": "{step}.pt", "settle": 0}, "touch {checkpoints}/7.pt"),
    ],
    ids=["dcp", "megatron", "file"],
)
def test_each_sign_of_completeness_counts(
    bench: Bench, layout: dict[str, Any], written: str
) -> None:
    failure(said(bench, {"command": f"{written}; exit 3", "checkpoints": layout}))
    assert bench.sealed() == ["7-3-1"]


def test_of_two_the_whole_one_is_saved_and_never_the_half_one(bench: Bench) -> None:
    command = f"{whole(6)}; {half(8)}; exit 3"
    failure(said(bench, {"command": command, "checkpoints": HUGGINGFACE}))
    assert bench.sealed() == ["6-3-1"]


@pytest.mark.parametrize("lived", [0.0, 1.5])
def test_what_only_its_age_shows_to_be_whole_may_be_half_written_when_it_dies(
    bench: Bench, lived: float
) -> None:
    layout = {"pattern": "{step}.pt", "settle": 1.0}
    command = f"echo w > {{checkpoints}}/7.pt; sleep {lived}; exit 3"
    failure(said(bench, {"command": command, "checkpoints": layout}))
    assert bench.sealed() == (["7-3-1"] if lived else [])


def test_how_long_others_take_to_end_makes_nothing_whole(bench: Bench) -> None:
    """One process dies while it writes; the other ignores for a while that it shall end."""
    source = """if True:
        import os, signal, sys, time
        ignores = sys.argv[1] + "/ignores"
        if os.environ["RANK"] == "0":
            while not os.path.exists(ignores):
                time.sleep(0.01)
            open(sys.argv[1] + "/7.pt", "w").close()
            sys.exit(3)
        signal.signal(signal.SIGTERM, lambda *_: None)
        open(ignores, "w").close()
        time.sleep(30)
    """
    layout = {"pattern": "{step}.pt", "settle": 1.0}
    params = {"command": python(source, "{checkpoints}"), "processes": 2, "checkpoints": layout}
    failure(said(bench, {**params, "grace": 2.0}))
    assert bench.sealed() == []


def test_parts_of_all_workers_are_saved_when_all_fail_at_once(bench: Bench) -> None:
    source = """if True:
        import os, sys
        at = sys.argv[1] + "/checkpoint-4"
        os.makedirs(at)
        open(at + "/part-" + os.environ["RANK"], "w").close()
        if os.environ["RANK"] == "0":
            open(at + "/trainer_state.json", "w").close()
        sys.exit(3)
    """
    two = Needs(workers=2)
    fails = {"command": python(source, "{checkpoints}"), "checkpoints": HUGGINGFACE}
    patient = AttemptSettings(last_save=60.0)  # the other may be long in starting
    for messages in bench.together(request(bench, fails, needs=two, waits=patient)):
        assert failure(messages).failure.kind is FailureKind.UNKNOWN
    assert bench.sealed() == ["4-3-1"]
    shows = {"command": "cd {checkpoint}; ls part-*", "checkpoints": HUGGINGFACE}
    told = bench.together(request(bench, shows, needs=two, attempt=2))
    assert [lines(messages) for messages in told] == [["part-0", "part-1"]] * 2


def test_a_worker_whose_others_run_on_waits_for_them_no_longer_than_it_may(bench: Bench) -> None:
    params = {"command": f"{whole(4)}; exit 3", "checkpoints": HUGGINGFACE}
    asked = request(bench, params, needs=Needs(workers=2), waits=AttemptSettings(last_save=0.5))
    began = monotonic()
    assert asked.waits.checkpoint > MUCH_LONGER
    messages = [message for batch in bench.stream(asked) for message in batch]
    assert "ended with 3" in failure(messages).failure.evidence
    told = "the last checkpoint was not saved: the checkpoint of step 4 is not saved after 0.5 s"
    assert told in lines(messages)
    assert monotonic() - began < MUCH_LONGER


# --- of a command that is ended -----------------------------------------------------------------


def writes_when_asked(step: int, then: str = "exit 0") -> str:
    """Return a command that saves when it is asked to end."""
    words = f"trap '{whole(step)}; {then}' TERM; echo '{{\"step\": 1, \"loss\": 1}}'"
    return f"{words}; while true; do sleep 0.05; done"


@pytest.mark.parametrize("then", ["exit 0", "exit 143"])
def test_what_it_saves_when_its_worker_is_asked_to_end_is_kept(bench: Bench, then: str) -> None:
    params = {"command": writes_when_asked(7, then), "checkpoints": HUGGINGFACE}
    stream = bench.stream(request(bench, params))
    first_line(stream)
    stream.close()  # type: ignore[attr-defined]
    assert bench.sealed() == ["7-3-1"]


def test_what_it_saves_when_it_hangs_is_kept_before_that_is_told(bench: Bench) -> None:
    params = {"command": writes_when_asked(7), "checkpoints": HUGGINGFACE}
    asked = request(bench, params, watch=Watch(hang=1.0))
    messages: list[Message] = []
    for batch in bench.stream(asked):
        messages += batch
        if isinstance(messages[-1], Failed):
            assert bench.sealed() == ["7-3-1"]
    assert failure(messages).failure.kind is FailureKind.HANG
    assert kinds(messages) == [Saved, Failed]


def test_one_that_ignores_that_it_shall_end_is_killed_and_what_is_whole_kept(
    bench: Bench, until: Callable[[Callable[[], bool]], None]
) -> None:
    stubborn = f"trap '{whole(7)}; {half(9)}' TERM; echo $$; while true; do sleep 0.1; done"
    params = {"command": stubborn, "checkpoints": HUGGINGFACE, "grace": 1.0}
    stream = bench.stream(replace(request(bench, params), kill_after=10.0))
    pid = int(first_line(stream))
    stream.close()  # type: ignore[attr-defined]
    assert gone(pid)
    assert bench.sealed() == ["7-3-1"]
    until(lambda: bench.scratch() == [])


def test_a_stale_attempt_s_is_refused(bench: Bench) -> None:
    go = bench.folder.parent / "go"
    waits = f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; {whole(7)}; exit 3"
    older: Iterator[Any] = bench.stream(
        request(bench, {"command": waits, "checkpoints": HUGGINGFACE})
    )
    first_line(older)
    newer = said(bench, {"command": "true", "checkpoints": HUGGINGFACE}, attempt=2)
    assert isinstance(newer[-1], Succeeded)
    go.touch()
    messages = [message for batch in older for message in batch]
    assert isinstance(messages[-1], Failed)
    assert any("attempt 1 of epoch 3 must not save any more" in text for text in lines(messages))
    assert bench.sealed() == []
