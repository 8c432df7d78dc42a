"""What a command tells to type next is about the same config."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from orchestrator import wiring
from tests.conftest import Command

HERE = ("cluster=local", "tracking=none")


@pytest.fixture
def mine(tmp_path: Path, within: Command) -> tuple[str, ...]:
    """Flags that choose a config of one's own, with a pipeline that only it has."""
    folder = tmp_path / "my configs"
    (folder / "pipeline").mkdir(parents=True)
    shipped = Path(wiring.__file__).parents[1] / "conf"
    (folder / "own.yaml").write_text((shipped / "config.yaml").read_text("utf-8"))
    text = (shipped / "pipeline" / "noop.yaml").read_text("utf-8")
    (folder / "pipeline" / "mine.yaml").write_text(text.replace("name: noop", "name: mine"))
    return ("--config-dir", "my configs", "--config-name", "own")


def hinted(said: str, verb: str) -> list[str]:
    """Return the words of the command that is told, of this verb."""
    line = next(line for line in said.splitlines() if f"  orchestrator {verb}" in line)
    return shlex.split(line[line.index(f"orchestrator {verb}") :])[1:]


@pytest.mark.parametrize("verb", ["launch", "qualify"])
def test_pools_tells_what_to_type_for_the_same_fleet(
    within: Command, mine: tuple[str, ...], verb: str
) -> None:
    told = hinted(within("pools", *mine, "fleet=rehearsal").stdout, verb)
    assert [word for word in told if word in {*mine, "fleet=rehearsal"}] == [
        *mine,
        "fleet=rehearsal",
    ]


def test_pools_tells_short_commands_where_nothing_was_chosen(within: Command) -> None:
    assert hinted(within("pools").stdout, "launch") == ["launch", "roles.train=POOL"]


def test_a_run_that_ended_tells_how_to_launch_it_again_from_any_folder(
    orchestrator: Command,
    within: Command,
    mine: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert orchestrator("launch", *mine, "pipeline=mine", *HERE).returncode == 0
    (header,) = wiring.database(tmp_path / ".orchestrator").runs()
    told = hinted(within("resume", header.run).stdout, "launch")
    assert told[1:3] == ["--config-dir", str(tmp_path / "my configs")]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    done = within(*told, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "run pipeline mine" in done.stdout
