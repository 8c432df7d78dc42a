"""Each pipeline that the page of training writes out composes and plans."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.adapters import hydra_config, user_code
from orchestrator.core.spec.plan import make_plan

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
PIPELINES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_some() -> None:
    assert len(PIPELINES) > 1


@pytest.mark.parametrize("text", PIPELINES, ids=range(len(PIPELINES)))
def test_a_pipeline_of_the_page_plans(text: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "own.yaml").write_text(text, "utf-8")
    settings = hydra_config.compose(["pipeline=own"], config_dir=tmp_path)
    assert user_code.check(settings.pipeline, settings.jobs) == ()
    plan = make_plan(settings.pipeline, settings.fleet, settings.bindings, seed=settings.seed)
    assert plan["train"].pools
