"""Where the words of a line begin, how loud it is, and what it merely tells of."""

from __future__ import annotations

import pytest

from orchestrator.core.lines import (
    LONGEST,
    MOST_HEADS,
    Level,
    clauses,
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
        ("ERROR x", Level.SAID),
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


@pytest.mark.parametrize("line", ["", "  at x", "frame #3: y", "Traceback (most recent", "#1 z"])
def test_lines_of_a_stack_belong_to_the_line_before(line: str) -> None:
    assert of_a_stack(line)


def test_any_other_line_stands_for_itself() -> None:
    assert not of_a_stack("step 1")
