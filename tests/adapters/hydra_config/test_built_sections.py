"""What was built in Python is written as a config has it."""

from __future__ import annotations

from pathlib import Path

import pytest

import orchestrator
from orchestrator.adapters import hydra_config
from orchestrator.adapters.hydra_config import built_sections

CONF = Path(orchestrator.__file__).parent / "conf"


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("name", names("pipeline"))
def test_a_pipeline_is_read_back_as_it_was(name: str) -> None:
    words = [f"pipeline={name}"]
    composed = hydra_config.compose(words)
    sections = {"pipeline": built_sections.pipeline(composed.pipeline)}
    assert hydra_config.compose(words, sections=sections).pipeline == composed.pipeline
    again = hydra_config.compose(["pipeline=noop"], sections=sections)
    assert again.pipeline == composed.pipeline


@pytest.mark.parametrize("name", names("fleet"))
def test_a_fleet_is_read_back_as_it_was(name: str) -> None:
    composed = hydra_config.compose([f"fleet={name}"])
    sections = {"fleet": built_sections.fleet(composed.fleet)}
    assert hydra_config.compose(["pipeline=noop"], sections=sections).fleet == composed.fleet
