"""A file of JSON lines is read as it grows: whole lines, each once."""

from __future__ import annotations

from pathlib import Path

from jobs.commands.json_lines import JsonLines


def read(file: JsonLines) -> list[tuple[int, dict[str, float]]]:
    file._next_look = 0.0
    return list(file.read())


def test_lines_are_read_once_they_are_whole_and_none_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    file = JsonLines(path, "step")
    assert read(file) == []
    with path.open("w") as log:
        log.write('{"step": 1, "loss": 1.0}\nno JSON\n{"loss": 3}\n{"step": 2, "lo')
        log.flush()
        assert read(file) == [(1, {"loss": 1.0})]
        log.write('ss": 0.5}\n{"step": 3, "loss": 0.25}')
        log.flush()
        assert read(file) == [(2, {"loss": 0.5})]
    assert list(file.read(last=True)) == [(3, {"loss": 0.25})]
    assert (file.lacking, file.problems) == ("", [])


def test_what_was_there_before_is_left_out_and_one_that_is_begun_anew_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 1.0}\n')
    file = JsonLines(path, "step")
    assert read(file) == []
    assert file.lacking == "no line with metrics and 'step' was seen in 'log.jsonl'"
    path.write_text('{"step": 3, "loss": 1.0}\n')
    assert read(file) == [(3, {"loss": 1.0})]


def test_what_is_no_file_is_told_once(tmp_path: Path) -> None:
    file = JsonLines(tmp_path, "step")
    file._offset = 0
    assert read(file) + read(file) == []
    assert file.problems == [f"{tmp_path.name} is read no further: Is a directory"]
