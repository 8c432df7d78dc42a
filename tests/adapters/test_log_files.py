"""What attempts print and report, as files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.adapters.log_files import LogFiles, existing, reports
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import Failed, LogLine, Report


def test_lines_failures_and_reports_of_an_attempt_lie_together(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path / "run")
    logs.observe("parity", 1, LogLine(0, "kl_mean: 3"))
    logs.observe("parity", 1, Report("parity.md", "draft"))
    logs.observe("parity", 1, Report("parity.md", "Not passed."))
    failure = Failure(kind=FailureKind.PARITY, evidence="kl_mean is 3")
    logs.observe("parity", 1, Failed(failure))
    logs.close()
    (file,) = existing(logs.folder)
    assert file.read_text() == "[0] kl_mean: 3\nparity: kl_mean is 3\n"
    kept = {path.name: path.read_text() for path in reports(logs.folder, "parity", 1).iterdir()}
    assert kept == {"parity.md": "Not passed."}


def test_text_that_is_no_unicode_is_written_as_escapes(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    logs.observe("s", 1, LogLine(0, "half \ud83d, and \udcff"))
    logs.observe("s", 1, Report("a.txt", "\ud800"))
    logs.close()
    (file,) = existing(tmp_path)
    assert file.read_text() == "[0] half \\ud83d, and \\udcff\n"
    assert (reports(tmp_path, "s", 1) / "a.txt").read_text() == "\\ud800"


def test_a_line_that_finds_no_room_is_lost_alone(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    (tmp_path / "s.1.log").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        logs.observe("s", 1, LogLine(0, "lost"))
    logs.close()
    (tmp_path / "s.1.log").unlink()
    logs.observe("s", 1, LogLine(0, "kept"))
    logs.close()
    assert (tmp_path / "s.1.log").read_text() == "[0] kept\n"


def test_what_comes_after_a_folder_was_removed_is_written_to_a_new_one(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path / "run")
    logs.observe("s", 1, LogLine(0, "removed"))
    shutil.rmtree(tmp_path / "run")
    logs.observe("s", 1, LogLine(0, "kept"))
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").touch()
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        logs.observe("s", 1, LogLine(0, "lost, and told"))
    (tmp_path / "run").unlink()
    logs.observe("s", 1, LogLine(0, "kept too"))
    logs.close()
    assert (tmp_path / "run/s.1.log").read_text() == "[0] kept too\n"


def test_a_folder_that_can_not_be_made_is_no_matter_until_there_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    logs = LogFiles(tmp_path / "logs/run")
    with pytest.raises(OSError, match="Not a directory"):
        logs.observe("s", 1, LogLine(0, "lost"))
    logs.close()
