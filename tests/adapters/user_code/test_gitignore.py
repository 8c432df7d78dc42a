"""Git is the judge of what `.gitignore` leaves out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.adapters.user_code.code_files import CodeFiles

GIT = shutil.which("git") or ""
FILES = (
    "a.txt",
    "b.log",
    "keep.log",
    "#odd",
    "!odd",
    "data/big.bin",
    "data/small.yaml",
    "src/data/x.txt",
    "src/deep/er/y.txt",
    "src/deep/er/z.tmp",
    "out1/q.txt",
    "out22/q.txt",
    "docs/build/html.txt",
    "build/lib.txt",
    "name with space.txt",
    "a[1].txt",
    "src/local_secrets.py",
    "src/kept.py",
)
RULES = (
    "*.log\n!keep.log",
    "/data",
    "data/",
    "data/*\n!data/small.yaml",
    "**/er/*.tmp",
    "src/**",
    "src/**/z.tmp",
    "out?/",
    "out[0-9]/",
    "out[!1]*/",
    "\\#odd\n\\!odd",
    "# a comment\n\n   \nbuild",
    "docs/build",
    "name with space.txt   ",
    "a\\[1\\].txt",
    "*\n!a.txt",
    "[",
    "er",
    "*.py",
)


@pytest.mark.skipif(not GIT, reason="git is the judge")
@pytest.mark.parametrize("rules", RULES)
def test_what_counts_as_code_is_what_git_would_add(tmp_path: Path, rules: str) -> None:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "src" / ".gitignore").write_text("y.txt\n")
    (tmp_path / ".gitignore").write_text(rules)
    git = [GIT, "-c", "core.quotePath=false", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    asked = [*git, "ls-files", "--others", "--exclude-standard"]
    judged = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert sorted(names(tmp_path)) == sorted(judged.splitlines())


@pytest.mark.skipif(not GIT, reason="git is the judge")
def test_the_rules_of_folders_above_hold_up_to_the_root_of_the_work_tree(tmp_path: Path) -> None:
    inner = tmp_path / "repository" / "inner"
    inner.mkdir(parents=True)
    subprocess.run([GIT, "init", "-q", str(inner.parent)], check=True)
    (tmp_path / ".gitignore").write_text("outside.txt\n")
    (inner.parent / ".gitignore").write_text("/inner/secret.txt\n")
    for name in ("secret.txt", "outside.txt", "code.txt"):
        (inner / name).write_text(name)
    assert names(inner) == ["code.txt", "outside.txt"]


def test_code_is_left_out_like_all_else_and_our_own_file_has_the_last_word(tmp_path: Path) -> None:
    for name in ("local_secrets.py", "fast.cpython-311.so", "kept.py", "notes.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("local_secrets.py\n*.so\n")
    assert names(tmp_path) == [".gitignore", "kept.py", "notes.txt"]
    (tmp_path / ".orchestratorignore").write_text("!*.so\nnotes.txt\n.orchestratorignore\n")
    assert names(tmp_path) == [".gitignore", "fast.cpython-311.so", "kept.py"]


def names(folder: Path) -> list[str]:
    """Return what travels of a folder."""
    return sorted(name for name, _ in CodeFiles().below(folder))
