"""What the words of a command are for the program that it starts, whatever the paths in them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.commands.expansion import Expansion
from tests.jobs.local_context import LocalContext

ODD = 'a b\'s $HOME `id` "c" \\ * {seed} #'
SHOW = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"


def expansion(folder: Path, value: str = ODD, checkpoint: Path | None = None) -> Expansion:
    ctx = LocalContext(folder=folder, inputs={"data": Path(value)})
    plain = Expansion.of(ctx, folder / "work")  # type: ignore[arg-type]
    odd = replace(plain, named={**plain.named, "output": value})
    return odd.resumed_from(checkpoint)


def printed(argv: list[str], folder: Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, cwd=folder)
    return done.stdout


def words(line: str, folder: Path) -> list[str]:
    """Return the words that a program has, as bash reads the line."""
    return json.loads(printed(expansion(folder).argv(f"{SHOW} {line}", ()), folder))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{output}", [ODD]),
        ("'{output}'", [ODD]),
        ('"{output}"', [ODD]),
        ("$'\\t{output}'", [f"\t{ODD}"]),
        ("{output}/x --to={inputs.data}/'{output}'", [f"{ODD}/x", f"--to={ODD}/{ODD}"]),
        ("""'"' {output} "it's" {output} \\" {output}""", ['"', ODD, "it's", ODD, '"', ODD]),
        ('"$(printf %s {output})"', [ODD]),
        ('"$(printf %s "{output}")x"', [f"{ODD}x"]),
        ("\"${NONE:-{output}}\" ${NONE:-'{output}'} {output}", [ODD, ODD, ODD]),
        ("$((1 + {seed})) {checkpoint} '${output}' {x} {output}", ["8", "${output}", "{x}", ODD]),
        ("a#{output} # it's {output}\n: {output}", [f"a#{ODD}"]),
    ],
)
def test_a_value_in_a_line_is_what_it_is_wherever_it_stands(
    tmp_path: Path, line: str, expected: list[str]
) -> None:
    assert words(line, tmp_path) == expected


@pytest.mark.parametrize(
    ("begin", "end"), [("<<END", "END"), ("<<'END'", "END"), ('<<-"END" |cat', "\tEND")]
)
def test_a_value_in_a_document_of_a_line_is_what_it_is(
    tmp_path: Path, begin: str, end: str
) -> None:
    line = f"cat {begin}\nit's {{output}}\n{end}\nprintf '%s' {{output}}"
    assert printed(expansion(tmp_path).argv(line, ()), tmp_path) == f"it's {ODD}\n{ODD}"


def test_a_pattern_beside_a_value_is_one_and_plain_values_are_written_as_they_are(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "my runs"
    folder.mkdir()
    (folder / "config.json").touch()
    (folder / "model.safetensors").touch()
    (tmp_path / "into it").mkdir()
    plain = expansion(folder, str(tmp_path / "into it"))
    copies = replace(plain, named={**plain.named, "checkpoints": str(folder)})
    printed(copies.argv("cp {checkpoints}/*.json {checkpoints}/model* {output}", ()), tmp_path)
    assert len(list((tmp_path / "into it").iterdir())) == 2
    assert expansion(tmp_path, "/x/y-1.2").argv("a {output}/b", ())[-1] == "a /x/y-1.2/b"


RESUME = ("--resume", "{checkpoint}")


@pytest.mark.parametrize(
    ("command", "begins", "goes_on"),
    [
        ("train {resume} | tee log", "train  | tee log", "train --resume 'a b' | tee log"),
        ("bash -c 'train {resume}'", "bash -c 'train '", r"bash -c 'train --resume '\''a b'\'''"),
        ("train\n", "train", "train --resume 'a b'"),
        ("train ${resume}", "train ${resume}", "train ${resume} --resume 'a b'"),
        (["a", "{resume}", "b"], ["a", "b"], ["a", "--resume", "a b", "b"]),
        (["a", "b"], ["a", "b"], ["a", "b", "--resume", "a b"]),
    ],
)
def test_the_words_of_a_resume_stand_where_the_command_says_or_at_its_end(
    tmp_path: Path, command: str | list[str], begins: str | list[str], goes_on: str | list[str]
) -> None:
    shell = ["bash", "-euo", "pipefail", "-c"] if isinstance(command, str) else []
    for checkpoint, expected in ((None, begins), (Path("a b"), goes_on)):
        argv = expansion(tmp_path, checkpoint=checkpoint).argv(command, RESUME)
        assert argv == [*shell, *([expected] if isinstance(expected, str) else expected)]
