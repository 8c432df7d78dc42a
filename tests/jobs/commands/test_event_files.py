"""TensorBoard's event files are read as torch.utils.tensorboard has written them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from jobs.commands.event_files import EventFiles

# By torch.utils.tensorboard: scalars of three kinds, a text, a histogram. TensorBoard's own reader
# finds the values below.
WRITTEN = Path(__file__).parent / "events.out.tfevents"
LOSSES = [1.0, 0.5, 0.3333333432674408, math.nan, 0.125]


def losses(files: EventFiles) -> list[float]:
    tag = "loss/train"
    return [values[tag] for _, values in files.read(last=True) if tag in values]


def test_scalars_are_read_by_step_whatever_form_they_have(tmp_path: Path) -> None:
    files = EventFiles(tmp_path)
    (tmp_path / "run").mkdir()
    shutil.copy(WRITTEN, tmp_path / "run")
    read = list(files.read())
    assert [step for step, _ in read] == [1, 2, 3, 4, 5]
    expected = {"loss/train": 1.0, "lr": 0.10000000149011612, "double": 2.0**40 + 1}
    assert read[0][1] == expected
    assert (files.lacking, files.problems) == ("", [])


def test_what_is_still_being_written_is_read_later_and_nothing_twice(tmp_path: Path) -> None:
    files, content = EventFiles(tmp_path), WRITTEN.read_bytes()
    read: list[float] = []
    with (tmp_path / "x.tfevents.1").open("wb", buffering=0) as file:
        for begin in range(0, len(content), 97):
            file.write(content[begin : begin + 97])
            read += losses(files)
    assert read == pytest.approx(LOSSES, nan_ok=True)


def test_what_was_there_before_is_of_another_training(tmp_path: Path) -> None:
    shutil.copy(WRITTEN, tmp_path)
    files = EventFiles(tmp_path)
    assert losses(files) == []
    assert files.lacking


def test_long_records_are_skipped_and_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "later", largest=150)
    assert losses(files) == []
    (tmp_path / "later").mkdir()
    shutil.copy(WRITTEN, tmp_path / "later")
    assert losses(files) == pytest.approx(LOSSES, nan_ok=True)


@pytest.mark.parametrize("at", [3, 9, 200], ids=["length", "its checksum", "a record"])
def test_a_damaged_file_is_told_once_and_read_no_further(tmp_path: Path, at: int) -> None:
    files, content = EventFiles(tmp_path), bytearray(WRITTEN.read_bytes())
    content[at] ^= 0xFF
    (tmp_path / "x.tfevents.1").write_bytes(content)
    before = losses(files)
    assert before == LOSSES[: len(before)]
    assert len(before) < len(LOSSES)
    (told,) = files.problems
    assert told.endswith("x.tfevents.1 is read no further: the checksum of a record differs")
    assert losses(files) == []
    assert len(files.problems) == 1
