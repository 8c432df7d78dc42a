"""What a command says while it is ended, and what it leaves behind, is shown and ends with it."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.failures.failure_report import FailureReport
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import Failed, LogLine, Message, Points, Succeeded
from tests.build import documented
from tests.worker.commands import gone, lines, python, request, said
from tests.worker.conftest import Bench

OFF_THE_BUS = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."
# One of two fails; the other says much once it is asked to end, and saves after that.
FLOODS = """if True:
    import os, signal, sys, time
    checkpoints, cause, late = sys.argv[1:]
    def leave(*_):
        for _ in range(10_000): print(late + "x" * 100)
        print('{"step": 6, "loss": 0.5}', flush=True)
        os.mkdir(checkpoints + "/checkpoint-6")
        open(checkpoints + "/checkpoint-6/trainer_state.json", "w").close()
        sys.exit(0)
    if os.environ["RANK"] == "0":
        while not os.path.exists(checkpoints + "/ready"): time.sleep(0.01)
        print(cause)
        print("bye", flush=True)
        sys.exit(3)
    signal.signal(signal.SIGTERM, leave)
    open(checkpoints + "/ready", "w").close()
    time.sleep(60)
"""


def floods(bench: Bench) -> list[Message]:
    """Return what a command says of which one process floods as it ends."""
    late = "torch.OutOfMemoryError: CUDA out of memory. "
    return said(
        bench,
        {
            "command": python(FLOODS, "{checkpoints}", OFF_THE_BUS, late),
            "processes": 2,
            "checkpoints": {"layout": "huggingface"},
            "grace": 20.0,
        },
    )


def test_what_a_command_says_as_it_ends_is_read_so_that_it_can_save(bench: Bench) -> None:
    messages = floods(bench)
    assert bench.sealed() == ["6-3-1"]
    assert {"loss": 0.5} in [m.values for m in messages if isinstance(m, Points)]
    late = [line for line in lines(messages) if line.startswith(" [INFO, as it ends] ")]
    assert len(late) >= 1_000


def test_what_a_command_says_as_it_ends_is_no_sign_of_why_it_failed(bench: Bench) -> None:
    messages, report = floods(bench), FailureReport(documented())
    for message in messages:
        if isinstance(message, LogLine):
            report.hear(message.rank, message.text)
    outcome = messages[-1]
    assert isinstance(outcome, Failed)
    report.report(0, outcome.failure, at=5.0, now=0.0)
    verdict = report.verdict(0.0, all_known=True)
    assert isinstance(verdict, Failure)
    assert verdict.kind is FailureKind.DEVICE_LOST


def test_what_is_left_in_the_background_is_named_as_it_is_ended(bench: Bench) -> None:
    command = "nohup sleep 300 > /dev/null 2>&1 & echo $!"
    messages = said(bench, {"command": command})
    assert isinstance(messages[-1], Succeeded)
    pid, told = lines(messages)
    assert told == (
        f"the command has ended with 0 and left 'sleep 300' ({pid}): what is left is ended now;"
        " run it in the foreground, or `wait` for it"
    )
    assert gone(int(pid))


def test_what_ends_in_a_moment_is_nothing_that_is_left(bench: Bench) -> None:
    assert lines(said(bench, {"command": "sleep 0.5 > /dev/null 2>&1 & echo done"})) == ["done"]


def test_no_line_of_a_flood_goes_without_a_word_and_all_its_metrics_arrive(
    bench: Bench, until: Callable[[Callable[[], bool]], None]
) -> None:
    over = bench.folder.parent / "over"
    point = 'echo \'{"step": STEP, "loss": 0.5}\''
    flood = "; ".join(f"seq 10000; {point.replace('STEP', str(step))}" for step in range(1, 5))
    stream = bench.stream(request(bench, {"command": f"{flood}; touch {over}"}))
    messages = [*next(stream)]
    until(over.exists)  # nobody reads meanwhile
    messages += [message for batch in stream for message in batch]
    assert isinstance(messages[-1], Succeeded)
    assert [m.step for m in messages if isinstance(m, Points)] == [1, 2, 3, 4]
    lost = [line for line in lines(messages) if line.endswith("printed faster than they are read")]
    assert lost
    kept = len(lines(messages)) - len(lost)
    assert kept + sum(int(line.partition(" ")[0]) for line in lost) == 4 * 10_001
