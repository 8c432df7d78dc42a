"""What the shell offers after a tab."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
