"""A user's own configs, which need nothing of the shipped jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.adapters import hydra_config
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.settings import Settings

TINY = """\
name: tiny
stages:
  prepare:
    job: acme.work.prepare
    role: prepare
    needs: {devices: 0}
  learn:
    job: acme.work.learn
    role: train
    params: {steps: 3, lr: 0.1}
    inputs: {data: prepare}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for `--config-dir` with one pipeline, `tiny`."""
    found = tmp_path / "own"
    (found / "pipeline").mkdir(parents=True)
    (found / "pipeline" / "tiny.yaml").write_text(TINY)
    return found


@pytest.fixture
def write(folder: Path) -> Callable[[str, str], Path]:
    """Write a file into the user's folder."""

    def write_file(name: str, text: str) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write_file


@pytest.fixture
def compose(folder: Path) -> Callable[..., Settings]:
    """Compose the pipeline `tiny` with further overrides."""
    return lambda *overrides: hydra_config.compose(
        ["pipeline=tiny", *overrides], config_dir=folder
    )


@pytest.fixture
def refused(compose: Callable[..., Settings]) -> Callable[..., Sequence[Problem]]:
    """Compose what can't be, and return all problems."""

    def problems(*overrides: str) -> Sequence[Problem]:
        with pytest.raises(ConfigError) as caught:
            compose(*overrides)
        assert all("\n" not in str(problem) for problem in caught.value.problems)
        return caught.value.problems

    return problems
