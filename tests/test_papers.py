"""The papers of the repository say what is true: licence, changelog, hooks, examples."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import TypeAdapter

import orchestrator
from orchestrator.core.hardware import Accelerator

ROOT = Path(__file__).parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def examples(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(name), flags=re.DOTALL)


def test_the_licence_is_the_one_that_the_package_names() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert project["license"] == "Apache-2.0"
    lines = [line.strip() for line in text_of("LICENSE").splitlines()]
    assert lines[1:4] == [
        "Apache License",
        "Version 2.0, January 2004",
        "http://www.apache.org/licenses/",
    ]
    assert "END OF TERMS AND CONDITIONS" in lines


def test_the_changelog_opens_with_this_version() -> None:
    versions = re.findall(
        r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", text_of("CHANGELOG.md"), re.MULTILINE
    )
    assert versions[0][0] == orchestrator.__version__


def test_every_hook_is_local_and_calls_a_target_of_the_makefile() -> None:
    config = yaml.safe_load(text_of(".pre-commit-config.yaml"))
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    targets = re.findall(r"^([a-z]\w*):", text_of("Makefile"), re.MULTILINE)
    for hook in config["repos"][0]["hooks"]:
        command, target = hook["entry"].split()
        assert (command, target in targets) == ("make", True)


def test_the_chip_of_the_contributing_guide_parses() -> None:
    (example,) = examples("CONTRIBUTING.md", "yaml")
    known = TypeAdapter(Accelerator).validate_python(yaml.safe_load(example))
    assert known.resource == "NPU"


def test_the_job_of_the_contributing_guide_runs(tmp_path: Path) -> None:
    (example,) = examples("CONTRIBUTING.md", "python")
    scope: dict[str, Callable[..., object]] = {}
    exec(compile(example, "CONTRIBUTING.md", "exec"), scope)  # noqa: S102 - our own example

    class Context:
        output = tmp_path

    assert scope["count"](Context(), text="to be or not") == {"words": 4.0}
    assert (tmp_path / "words.txt").read_text() == "to\nbe\nor\nnot"
