"""Secrets are read where a run is launched; what is planned and kept has their names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.core.errors import ConfigError

STAGE = "pipeline.stages.noop"
ASKED = ["pipeline=noop", f"+{STAGE}.secrets={{TOKEN: A_SECRET, KEY: /absent}}"]


def test_a_secret_that_has_no_value_here_is_refused_by_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("A_SECRET", raising=False)
    with pytest.raises(ConfigError) as refused:
        wiring.planned(ASKED)
    assert [str(problem) for problem in refused.value.problems] == [
        f"{STAGE}.secrets.TOKEN: variable 'A_SECRET' has no value here; set it where you launch",
        f"{STAGE}.secrets.KEY: file '/absent' has no value here; set it where you launch",
    ]


def test_a_secret_is_read_from_a_variable_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "xyzzy-1")
    file = tmp_path / "key"
    file.write_text("xyzzy-2\n")
    settings, planned = wiring.planned([ASKED[0], ASKED[1].replace("/absent", str(file))])
    assert "xyzzy-1" not in repr(settings) + repr(planned)
    assert "xyzzy-2" not in repr(settings) + repr(planned)
    defaults = wiring.attempt_defaults(settings, tmp_path)
    assert defaults.secret("A_SECRET") == "xyzzy-1"
    assert defaults.secret(str(file)) == "xyzzy-2"
    assert defaults.secret("~/absent/key") is None
