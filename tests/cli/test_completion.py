"""What the shell offers after a tab."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator import wiring
from orchestrator.cli import parser
from orchestrator.core.endpoints.life import RevisionAdded
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.spec.outside_servers import Outside

LOCAL = ("pipeline=noop", "cluster=local", "tracking=none")
RUN = "noop-20260101-000000-abcd"
BASH = """
eval "$(orchestrator completion bash)"
COMP_LINE="$LINE"
COMP_POINT=${#COMP_LINE}
# bash itself breaks words at `=`
read -ra COMP_WORDS <<< "$(sed 's/=/ = /g' <<< "$LINE")"
[[ "$LINE" == *[=\\ ] ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_orchestrator 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def offered(tmp_path, environment):
    shim = tmp_path / "orchestrator"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    shim.chmod(0o755)

    def complete(line: str) -> set[str]:
        changed = {"LINE": line, "PATH": f"{tmp_path}:{environment['PATH']}"}
        done = subprocess.run(
            ["/bin/bash", "-c", BASH],
            env={**environment, **changed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return set(done.stdout.split())

    return complete


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("orchestrator la", {"launch"}),
        ("orchestrator launch roles.train=", {"ascend", "nvidia"}),
        ("orchestrator launch pipeline=r2 roles.serve=a", {"ascend"}),
        ("orchestrator plan pipeline=sm", {"smoke", "smollm2"}),
    ],
)
def test_bash_completes_verbs_groups_and_pools(offered, line, words):
    assert offered(line) == words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(orchestrator, shell):
    assert "_complete" in orchestrator("completion", shell).stdout


@pytest.fixture
def home(tmp_path, within):
    """A home with a run and an endpoint."""
    at = tmp_path / ".orchestrator"
    at.mkdir()
    found, planned = wiring.planned(LOCAL)
    wiring.database(at).create(
        RunHeader(run=RUN, plan=planned, config=found.resolved, created=1.0), 1.0
    )
    far = RevisionAdded(1, outside=Outside(address="http://one/v1", model="llama"))
    endpoints = wiring.database(at)
    endpoints.follow(endpoints.endpoint("far"), (far,), 1.0)
    return at


def takes(word: str) -> list[tuple[str, list[str]]]:
    """Return each verb that takes `word`, and what is typed before it."""
    found = []
    for verb in parser.verbs():
        places = [a for a in parser.actions(verb) if not a.option_strings]
        names = [str(action.metavar) for action in places]
        at = [number for number, name in enumerate(names) if word in name.split("|")]
        if at:
            found.append((verb, [RUN][: at[0]]))
    return found


@pytest.mark.parametrize(("verb", "before"), takes("RUN"))
def test_every_verb_that_takes_a_run_is_offered_its_id(within, home, verb, before):
    assert RUN in within("_complete", verb, *before, "noop-2").stdout.split()


@pytest.mark.parametrize(("verb", "before"), takes("STAGE"))
def test_every_verb_that_takes_a_stage_is_offered_those_of_the_run(within, home, verb, before):
    assert within("_complete", verb, *before, "").stdout.split() == ["noop"]


@pytest.mark.parametrize(("verb", "before"), takes("ENDPOINT"))
def test_every_verb_that_takes_an_endpoint_is_offered_its_name(within, home, verb, before):
    assert "far" in within("_complete", verb, *before, "fa").stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("launch", "pipeline=noop", "--continue", "noop"), [RUN]),
        (("resume", RUN, "--from", ""), ["noop"]),
        (("rerun", "-d", RUN, "n"), ["noop"]),
        (("rerun", "--no"), ["--no-cache"]),
        (("ask", "-e", "f"), ["far"]),
        (("failures", ""), ["explain"]),
        (("failures", "explain", "pipeline=noo"), ["pipeline=noop"]),
        (("deploy", RUN, "roles.serve=a"), ["roles.serve=ascend"]),
        (("keys", "r"), ["rotate", "revoke", "require"]),
        (("completion", "z"), ["zsh"]),
        (("pools", "dr"), ["drain"]),
        (("pools", "drain", "as"), ["ascend"]),
        (("pools", "undrain", "fleet=r2", "h"), ["h20", "h800", "host"]),
        (("pools", "drain", "ascend", "n"), []),
        (("qualify", "nv"), ["nvidia"]),
        (("qualify", "ascend", "nv"), []),
        (("re",), ["resume", "rerun"]),
        (("nothing", ""), []),
        (("rerun", RUN, "noop", ""), []),
        (("rerun", "nope", ""), []),
    ],
)
def test_what_a_verb_takes_is_offered(within, home, words, offered):
    done = within("_complete", *words)
    assert (done.returncode, done.stdout.split()) == (0, offered)


def test_failures_are_explained_from_a_file(within, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/worker.log").touch()
    assert within("_complete", "failures", "explain", "lo").stdout.split() == ["logs/"]
    assert within("_complete", "failures", "explain", "logs/w").stdout == "logs/worker.log\n"
    assert within("_complete", "failures", "explain", "nowhere/w").stdout == ""


@pytest.mark.parametrize("home", [".orchestrator", "a" * 300, "/proc/nowhere"])
def test_a_tab_makes_nothing(within, tmp_path, monkeypatch, home):
    monkeypatch.setenv("ORCHESTRATOR_HOME", home)
    for verb in parser.verbs():
        done = within("_complete", verb, "")
        assert (done.returncode, done.stderr) == (0, ""), verb
        within("_complete", verb, "x", "")
    assert list(tmp_path.iterdir()) == []
