"""Runs scripts of these tests, which fork the workers of a gang, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 110


def printed_by(script: str, spec: object, *options: str, seconds: float = SECONDS) -> str:
    """Run module `script` of these tests by its spec, which succeeds; return what it prints.

    `options` are those of the interpreter, `seconds` what it may take.
    """
    done = subprocess.run(
        [sys.executable, *options, "-m", f"tests.jobs.{script}", json.dumps(spec)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
