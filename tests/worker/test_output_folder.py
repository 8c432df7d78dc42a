"""What is no file of its own in `ctx.output`, or takes its place, is refused by one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.worker.output_folder import has_files
from tests.worker.conftest import Bench

TURNS = [
    ("ctx.output.rmdir(); ctx.output.write_text('x')", "ctx.output is a file now; leave it a"),
    ("ctx.output.rmdir()", "ctx.output is gone; leave it a folder, and write files into it"),
    ("ctx.output.rmdir(); ctx.output.symlink_to('/tmp')", "ctx.output is a link now; leave it"),
    ("ctx.output.rmdir(); os.mkfifo(ctx.output)", "ctx.output is a pipe now; leave it a folder"),
    ("os.mkfifo(ctx.output / 'pipe')", "ctx.output has 'pipe', a pipe; write a file instead"),
    ("(ctx.output / 'me').symlink_to('me')", "ctx.output has 'me', a link; write a file instead"),
    (
        "(ctx.output / 'sub').mkdir(); (ctx.output / 'sub/up').symlink_to('..')",
        "ctx.output has 'sub/up', a link; write a file instead",
    ),
    (
        "(ctx.output / 'a').write_text('x'); (ctx.output / 'b').symlink_to('a')",
        "ctx.output has 'b', a link; write a file instead",
    ),
    (
        "with socket.socket(socket.AF_UNIX) as s: s.bind(os.path.relpath(ctx.output / 's'))",
        "ctx.output has 's', a socket; write a file instead",
    ),
]


@pytest.mark.parametrize(("turns", "told"), TURNS)
def test_what_can_not_be_kept_is_refused_and_nothing_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, turns: str, told: str
) -> None:
    monkeypatch.chdir(bench.store.scratch("at").parent.parent)  # the path of a socket is short
    failure = bench.failure(f"import os, socket\ndef job(ctx):\n    {turns}\n")
    assert failure.kind is FailureKind.USER_CODE
    assert failure.evidence.startswith(told)
    assert [path for path in bench.scratch() if not path.name.startswith("at-")] == []


def test_empty_folders_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    assert not has_files(tmp_path)
    (tmp_path / "a/b/c").write_text("")
    assert has_files(tmp_path)


def test_another_rank_may_do_with_its_folder_what_it_likes(bench: Bench) -> None:
    bench.result("def job(ctx): ctx.output.rmdir()", rank=1)
