"""The failure that a worker told is read beside its output when the process is gone."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from orchestrator.adapters.raycluster import last_words
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import Failed

BEGIN = """
    from orchestrator.adapters.raycluster import last_words
    from orchestrator.core.failures.kinds import Failure, FailureKind
    from orchestrator.messages import Alive, Failed
    failed = Failed(Failure(kind=FailureKind.CANCELLED, evidence="by s3cr3t-key", step=3), 12.0)
    """


def written(folder: Path, script: str) -> Path:
    """Return the output of a process that runs `script`."""
    output = folder / "worker.err"
    with output.open("wb") as stderr:
        text = textwrap.dedent(BEGIN) + textwrap.dedent(script)
        subprocess.run([sys.executable, "-c", text], stderr=stderr, timeout=60, check=True)
    return output


def test_the_failure_that_was_told_last_is_kept_without_secrets(tmp_path: Path) -> None:
    output = written(
        tmp_path, 'last_words.keep([Alive(0, 3), failed], ["s3cr3t-key"]); last_words.keep([], [])'
    )
    failure = Failure(kind=FailureKind.CANCELLED, evidence="by ***", step=3)
    assert last_words.last_failure(output) == Failed(failure, 12.0)


@pytest.mark.parametrize(
    "script",
    [
        "last_words.keep([Alive(0, 3)], [])",
        "last_words.keep([failed], []); last_words.forget()",
        "last_words.forget()",
    ],
)
def test_nothing_is_kept_of_a_worker_that_told_none_or_of_an_earlier_one(
    tmp_path: Path, script: str
) -> None:
    assert last_words.last_failure(written(tmp_path, script)) is None


def test_what_was_cut_off_while_it_was_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "worker.err.json").write_text('{"failure": {"ki')
    assert last_words.last_failure(tmp_path / "worker.err") is None
