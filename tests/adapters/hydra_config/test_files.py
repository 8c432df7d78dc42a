"""Files that can't be read: the file, the line, and one line of message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.core.errors import Problem

Refused = Callable[..., Sequence[Problem]]
Write = Callable[[str, str], Path]

BROKEN = [
    ("name: a\n  stages: [\n", "{file}:2:9: is not YAML: mapping values are not allowed here"),
    ("name: a\nstages:\n  x: {}\n  x: {}\n", "{file}:4:3: is not YAML: found duplicate key x"),
    ("name: !!python/name:os.system ''\n", "{file}:1:7: is not YAML: could not determine a const"),
    ("name: a\0\n", "{file}: is not YAML: it holds the character 0; save it as UTF-8 text"),
    ("- a\n- b\n", "pipeline: ['a', 'b'] is not a mapping"),
    (
        "defaults: 3\n",
        "{folder}: a config can't be composed: Invalid defaults list in 'pipeline/b",
    ),
    ("defaults:\n  - 3: a\n", "{folder}: a config can't be composed: bad defaults list; mend"),
    ("defaults:\n  - broken\n", "{folder}: a config can't be composed: it goes in a circle; "),
    ("a: &a\n  b: *a\n", "{folder}: a config can't be composed: it goes in a circle; mend the "),
    ("defaults:\n  - /storage@x: nope\n", "In 'pipeline/broken': Could not find 'storage/nope'; "),
]


@pytest.mark.parametrize(("text", "line"), BROKEN)
def test_a_broken_file_gives_one_line(
    refused: Refused, write: Write, folder: Path, text: str, line: str
) -> None:
    file = write("pipeline/broken.yaml", text)
    expected = line.format(file=file, folder=folder)
    assert [str(p)[: len(expected)] for p in refused("pipeline=broken")] == [expected]


def test_a_file_that_is_not_utf8_is_named(refused: Refused, folder: Path) -> None:
    file = folder / "pipeline" / "latin.yaml"
    file.write_bytes(b"name: \xff\xfe\n")
    (problem,) = refused("pipeline=latin")
    assert problem.path == str(file)
    assert problem.hint == "save it as UTF-8 text"


def test_other_problems_are_told_beside_a_broken_file(refused: Refused, write: Write) -> None:
    file = write("pipeline/broken.yaml", "name: [\n")
    problems = refused("pipeline=broken", "fleet=lcal", "foo=[", "seeed=3", "seed=4")
    assert [problem.path.split(":")[0] for problem in problems] == [
        "",
        "fleet",
        str(file),
        "seeed",
    ]


def test_every_value_that_a_file_leaves_open_is_listed(refused: Refused, write: Write) -> None:
    write(
        "pipeline/open.yaml",
        'name: open\nstages: {a: {job: "???", role: "???", params: {x: "???"}}}\n',
    )
    assert [problem.path for problem in refused("pipeline=open")] == [
        "pipeline.stages.a.job",
        "pipeline.stages.a.role",
        "pipeline.stages.a.params.x",
    ]


def test_values_that_refer_to_each_other_are_told_apart(refused: Refused, write: Write) -> None:
    write("pipeline/ring.yaml", "name: ring\nstages: {}\n")
    problems = refused("pipeline=ring", "tags.a=${tags.b}", "tags.b=${tags.a}")
    assert [problem.path for problem in problems] == ["tags.a", "tags.b"]
