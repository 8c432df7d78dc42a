"""The README's examples are run, or where a run would take long, parsed and planned."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from orchestrator.cli import parser

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICK = {"status", "pools", "plan", "down"}


def blocks(language: str, text: str = TEXT) -> list[str]:
    return [body for found, body in BLOCK.findall(text) if found == language]


def commands() -> list[list[str]]:
    lines = [line for body in blocks("sh") for line in body.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == ["orchestrator"]]


def files() -> dict[str, str]:
    """The files that the README shows, by path."""
    return dict(FILE.findall(TEXT))


def test_there_are_examples():
    assert len(commands()) >= 10
    assert set(files()) == {"my/fleet/lab.yaml", "my/pipeline/mine.yaml", "mypackage/words.py"}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one(words):
    assert parser.parse(words).verb == words[0]


@pytest.mark.parametrize("words", [w for w in commands() if w[0] in QUICK], ids=" ".join)
def test_quick_commands_do_what_they_say(orchestrator, words):
    done = orchestrator(*words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [w for w in commands() if w[0] == "launch"], ids=" ".join)
def test_what_is_launched_can_be_planned(orchestrator, tmp_path, words):
    write(tmp_path)
    flags = {"-m", "--detach"}
    plain = [word for word in words[1:] if word not in flags and "nvidia,ascend" not in word]
    done = orchestrator("plan", *plain)
    assert done.returncode == 0, done.stderr


def test_the_users_own_pipeline_runs(orchestrator, tmp_path):
    write(tmp_path)
    own = next(words for words in commands() if "--config-dir" in words)
    done = orchestrator(*own, "cluster=local", "tracking=none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "words 6" in done.stdout


def test_the_users_own_fleet_is_planned(orchestrator, tmp_path):
    write(tmp_path)
    done = orchestrator("plan", "--config-dir", "my", "fleet=lab", "pipeline=r2")
    assert done.returncode == 0, done.stderr
    assert "atlas" in done.stdout


def test_the_makefile_has_the_targets():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def write(folder: Path) -> None:
    for name, body in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
