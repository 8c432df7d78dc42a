from __future__ import annotations

from pathlib import Path

import pytest

from jobs.data.dataset import (
    FACTS_NAME,
    IGNORE,
    Facts,
    read_examples,
    read_facts,
    read_rows,
    rows_of,
    rows_of_stream,
    write_split,
)


def test_only_the_answer_is_learnt() -> None:
    rows = rows_of(
        [([5, 6, 7], [False, False, True]), ([5, 8, 9, 3], [False, *[True] * 3])], pad=0
    )

    assert rows.tokens.tolist() == [[5, 6, 7, 0], [5, 8, 9, 3]]
    assert rows.labels.tolist() == [[IGNORE, IGNORE, 7, IGNORE], [IGNORE, 8, 9, 3]]


def test_a_stream_is_cut_into_rows_without_its_short_end() -> None:
    rows = rows_of_stream(list(range(10)), width=4)

    assert rows.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert rows.labels.tolist() == rows.tokens.tolist()


def test_a_split_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = rows_of([([1, 2], [False, True])], pad=0)
    odd = [{"text": "line\u2028separator\nand é"}]
    write_split(tmp_path, "test", rows, odd)

    assert read_rows(tmp_path, "test").labels.tolist() == rows.labels.tolist()
    assert read_examples(tmp_path, "test") == odd


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no data set"):
        read_facts(tmp_path)


def test_an_unknown_split_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split 'dev'; there are train, validation, test"):
        read_rows(tmp_path, "dev")


def test_what_another_version_says_of_a_data_set_is_read(tmp_path: Path) -> None:
    (tmp_path / FACTS_NAME).write_text('{"kind": "text", "pad": 3, "made": {"width": 64}}')
    assert read_facts(tmp_path) == Facts(kind="text", pad=3)
