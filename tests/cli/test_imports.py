"""A command imports what it needs: what is imported at its start is waited for each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"hydra", "mlflow", "ray", "torch", "transformers"}
OF_OTHERS = {"orchestrator.adapters.hydra_config", "sqlalchemy.dialects.postgresql"}
PROCESSES = {"orchestrator.core.runs", "socket", "subprocess", "tempfile"}


@pytest.mark.parametrize(
    ("words", "unused"),
    [("--help", HEAVY | OF_OTHERS | PROCESSES), ("status", HEAVY | OF_OTHERS)],
)
def test_a_command_imports_nothing_that_it_does_not_need(
    tmp_path: Path, words: str, unused: set[str]
) -> None:
    script = (
        f"import sys\nfrom orchestrator.cli import main\ntry:\n    main([{words!r}])\nfinally:\n"
    )
    script += "    print(*sys.modules)"
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    imported = done.stdout.splitlines()[-1].split()
    assert "orchestrator.cli" in imported, done.stderr
    assert unused.isdisjoint(imported)
