"""Where the words of a line begin, how loud it is, and what it merely tells of."""

from __future__ import annotations

import pytest

from orchestrator.core.failures.lines import (
    LONGEST,
    MOST_HEADS,
    Level,
    clauses,
    labelled,
    last_words,
    of_a_handler,
    of_a_stack,
    own_words,
    read,
)


@pytest.mark.parametrize(
    "line",
    [
        "boom",
        "[rank0]: boom",
        "[1,0]<stderr>: boom",
        "(TrainWorker pid=7, ip=10.0.0.2) boom",
        "2026-01-02 10:11:12,123 - ERROR - boom",
        "ERROR:root:boom",
        "E0102 10:11:12.345678 4411 ProcessGroup.cpp:12] boom".replace("]", ":"),
        "Jan  2 10:11:12 node7 kernel: [123.4] boom",
        "node2:25146:25854 [0] misc/socket.cc:538 boom",
        "[ERROR] RUNTIME(51,python):2026-02-01-09:30:01.000.000 [stream.cc:1189] boom",
        "copy_d2d:torch_npu/csrc/aten/CopyKernel.cpp:274 boom",
        "operator():build/CMakeFiles/torch_npu.dir/compiler_depend.ts:47 boom",
        "  what():  boom",
        "torch.distributed.DistBackendError: boom",
        "worker-1: boom".replace("-", " "),
        "Epoch 3:  45%|####      | 451/1000 [10:02<12:11,  1.33s/it, loss=2.1]boom",
        "1021/100000 [45:39<51:20:53,  1.87s/it][rank2]:[E723 01:58:45.5 a.cpp:632] boom",
        "gpu07: boom",
        "3: [rank7]: boom",
        "2026-03-01T10:11:12.123456789Z stderr F boom",
        "Mar  1 10:11:12 gpu07 fabricmanager[2211]: boom",
        ":1:rocvirtual.cpp           :3280: 81559524416 us: [pid:65799 tid:0x7ff8] boom",
        "2024-10-09 15:47:38.568412: E external/xla/coordination_service.cc:1170] boom",
        "libc++abi: terminating due to uncaught exception of type std::runtime_error: boom",
    ],
)
def test_the_words_of_a_line_are_found_behind_what_makers_write_before_them(line: str) -> None:
    found = read(line)
    assert "boom" in {line[head:] for head in found.heads}


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("INFO docs: x", Level.QUIET),
        ("[INFO] x", Level.QUIET),
        ("I0102 10:11:12.345678 7 x", Level.QUIET),
        ("WARNING:root:x", Level.WARNING),
        ("[rank1]:[W1 12:00 socket.cpp:1] x", Level.WARNING),
        ("ERROR x", Level.LOUD),
        ("[rank1]:[E1 12:00 socket.cpp:1] x", Level.LOUD),
        ("ERROR x: [WARN] y", Level.LOUD),
        ("[WARN] ERROR x", Level.WARNING),
        ("x", Level.SAID),
    ],
)
def test_the_level_of_a_line_is_read_from_what_stands_before_its_words(
    line: str, level: Level
) -> None:
    assert read(line).level is level


def test_an_endless_line_is_cut_and_has_so_many_heads_at_most() -> None:
    found = read("[x]" * LONGEST)
    assert (len(found.text), len(found.heads)) == (LONGEST, MOST_HEADS)


def test_the_first_line_of_an_exception_begins_with_its_type_whatever_that_is_called() -> None:
    assert read("boom: x").raised == ""
    assert read("boom: x", of_exception=True).raised == "boom"
    assert read("Exception: x").raised == "Exception"


def test_further_clauses_begin_outside_of_quotes_and_before_what_is_data() -> None:
    line = read("RuntimeError: step failed: at 'a: b': reads: c")
    assert [line.text[at:] for at in clauses(line)] == [
        "at 'a: b': reads: c",
        "reads: c",
    ]


def test_what_a_text_quotes_and_tells_of_data_are_not_its_own_words() -> None:
    assert own_words("no 'CUDA' here, the row mentions NCCL").split() == [
        *("no", "here,", "the", "row"),
    ]


@pytest.mark.parametrize("rank", ["", "[rank3]: ", "[rank3]: [rank3]: "])
@pytest.mark.parametrize("line", ["", "  at x", "frame #3: y", "Traceback (most recent", "#1 z"])
def test_lines_of_a_stack_belong_to_the_line_before(line: str, rank: str) -> None:
    assert of_a_stack(rank + line)


def test_any_other_line_stands_for_itself() -> None:
    assert not of_a_stack("step 1")
    assert not of_a_stack("[rank3]: step 1")


HANDLERS = (
    "*** SIGABRT received at time=1700000000 on cpu 0 ***",
    "PC: @     0x7fbf372a8eec  (unknown)  (unknown)",
    "    @     0x7fbf3725a050  121317136  (unknown)",
    "[2026-01-02 10:11:12,956 E 7 7] logging.cc:474: *** SIGABRT received at time=1 on cpu 0 ***",
    "[2026-01-02 10:11:12,957 E 7 7] logging.cc:474:     @     0x7fbf3725a050  121317136",
    "Fatal Python error: Aborted",
    "",
    "Stack (most recent call first):",
    '  File "job.py", line 8 in job',
    "Extension modules: msgpack._cmsgpack, yaml._yaml (total: 2)",
)


def test_what_handlers_of_signals_write_and_stacks_are_no_last_words() -> None:
    stack = "Exception raised from f at a.cpp:7 (most recent call first):", "frame #0: f() + 0x57"
    said = ("terminate called", "  what():  xyzzy: fatal 0x77", *stack, *HANDLERS)
    assert last_words(said) == "what():  xyzzy: fatal 0x77"
    assert last_words(HANDLERS) == ""


@pytest.mark.parametrize(
    "line",
    [
        "Fatal Python error: init_sys_streams: <stdin> is a directory",
        "the thread of SIGABRT",
        "*** 7",
    ],
)
def test_what_says_more_than_which_signal_it_was_is_of_no_handler(line: str) -> None:
    assert not of_a_handler(line)


@pytest.mark.parametrize(
    "line",
    [
        "sample: x",
        "Sample 12: x",
        "[rank0]: generated text > x",
        "step 7 output[3] = x",
        "prediction #4 -> x",
        "2026-01-02 10:11:12 - INFO - decoded: x",
    ],
)
def test_an_example_is_known_by_what_it_is_called(line: str) -> None:
    assert labelled(read(line))


@pytest.mark.parametrize(
    "line", ["RuntimeError: input x", "Input type (x)", "x: sample", "output"]
)
def test_a_line_that_names_no_example_is_none(line: str) -> None:
    assert not labelled(read(line))


def test_what_a_handler_writes_behind_a_line_without_an_end_is_none_of_it() -> None:
    glued = "xyzzy: fatal 0x77*** SIGSEGV received at time=1796075249 on cpu 0 ***"
    assert last_words(["before", glued, "PC: @ 0x7f  (unknown)"]) == "xyzzy: fatal 0x77"
