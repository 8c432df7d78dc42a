"""Runs the scripts beside it, which fork the workers of a gang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]


def printed_by(script: str, spec: Mapping[str, object]) -> str:
    """Run a script by its spec, which succeeds; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.jobs.qualification.{script}", json.dumps(spec)],
        cwd=ROOT,
        check=False,
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
