"""What attempts print and report, as files."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.log_files import LogFiles, existing, reports
from orchestrator.core.failure import Failure, FailureKind
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
