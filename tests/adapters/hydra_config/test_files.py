"""Files that can't be read: the file, the line, and one line of message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.core.errors import Problem
from orchestrator.core.settings import Settings

Compose = Callable[..., Settings]
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
        "{file}: a config can't be composed: Invalid defaults list in 'pipeline/b",
    ),
    ("defaults:\n  - 3: a\n", "{file}: a config can't be composed: bad defaults list; mend"),
    (
        "defaults:\n  - broken\n",
        "{file}: a config can't be composed: it goes in a circle: pipeline/broken -> pipeline/bro",
    ),
    ("a: &a\n  b: *a\n", "{file}:2:6: *a stands in what it stands for; write out what is meant"),
    ("a: &a [1]\nb: *c\n", "{file}:2:4: is not YAML: found undefined alias"),
    ("a: " + "[" * 200 + "]" * 200, "{file}:1:53: it is nested more than 50 deep; write it flat"),
    ("5\n", "{file}: can't be read: Invalid loaded object type: int; mend the file"),
    ("name: '${{'\n", "{file}: a config can't be composed: name: "),
    ("name: a\nseed: " + "9" * 5000, "{file}: a config can't be composed: Exceeds the limit"),
    ("seed: 010\n", "{file}:1:7: '010' would be read to base 8; write it without the 0, or quote"),
    ("seed: -1:30\n", "{file}:1:7: '-1:30' would be read to base 60; write seconds, or quote it"),
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


def test_a_circle_of_several_files_is_named_whole(refused: Refused, write: Write) -> None:
    write("pipeline/one.yaml", "defaults: [two]\nname: one\n")
    write("pipeline/two.yaml", "defaults: [three]\n")
    write("pipeline/three.yaml", "defaults: [one]\n")
    (problem,) = refused("pipeline=one")
    ring = problem.what.rpartition(": ")[2].split(" -> ")
    assert sorted(set(ring)) == ["pipeline/one", "pipeline/three", "pipeline/two"]
    assert ring[0] == ring[-1]


def test_numbers_that_mean_what_they_say_are_taken(compose: Compose, write: Write) -> None:
    lines = ["name: tiny", "'010': x", "zero: 0", "half: 0.5", "time: '1:30'", "at: 12:00:99"]
    write("tags/plain.yaml", "\n".join(lines))
    assert compose("+tags=plain").tags["010"] == "x"


def bomb(levels: int, wide: int) -> str:
    """Return YAML in which `wide` ** `levels` values stand in a few lines."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * wide)}]" for n in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(("levels", "wide"), [(5, 10), (8, 10), (3, 47), (9, 9)])
def test_aliases_that_explode_are_refused_by_file_and_line(
    refused: Refused, write: Write, levels: int, wide: int
) -> None:
    file = write("pipeline/bomb.yaml", bomb(levels, wide))
    (problem,) = refused("pipeline=bomb")
    assert problem.path.startswith(f"{file}:")
    assert problem.what == "its aliases stand for more than 20,000 values"


def test_aliases_in_measure_are_taken(compose: Compose, write: Write) -> None:
    lines = ["name: many", "stages:", "  s: &s {job: acme.work.learn, role: train}"]
    lines += [f"  s{number}: *s" for number in range(100)]
    write("pipeline/many.yaml", "\n".join(lines))
    assert len(compose("pipeline=many").pipeline.stages) == 101
