"""Which model the checks of a pool compute, by the pipeline that trains it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import wiring
from orchestrator.core.spec.stages import Stage
from orchestrator.service import qualifying
from tests import build

DECLARED = {"architecture": "qwen3", "model": {"hidden_size": 64}}
DEFAULTS = {"jobs.usual": "llama"}
RAN = {"model_type": "gpt2", "n_embd": 48}


def model_of(stage: Stage, *others: Stage) -> Any:
    settings: Any = SimpleNamespace(pipeline=build.pipeline(stage, *others))
    return qualifying._model_in(settings, stage)


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the stages whose last run has made a model."""
    made = ["fetch"]

    def config(_: object, stage: str) -> dict[str, object]:
        return RAN if stage in made else {}

    monkeypatch.setattr(wiring, "config_of_last", config)
    monkeypatch.setattr(wiring, "job_default", lambda _, job, __: DEFAULTS.get(job))
    return made


def test_what_a_stage_names_counts_whatever_ran_before(runs: list[str]) -> None:
    runs.append("pretrain")
    pretrain = build.stage("pretrain", params={**DECLARED, "steps": 4})
    assert model_of(pretrain) == DECLARED
    asks = build.stage("reference", inputs={"model": "pretrain"}, params={"questions": 9})
    assert model_of(asks, pretrain) == DECLARED


def test_a_model_that_is_gone_on_from_counts_more_than_what_a_stage_names() -> None:
    fetch = build.stage("fetch", params={"model": "a/name", "revision": 3})
    train = build.stage("pretrain", inputs={"model": "fetch"}, params=DECLARED)
    assert model_of(train, fetch) == {"architecture": "gpt2", "model": RAN}


def test_a_command_tells_its_model_once_it_has_made_one(runs: list[str]) -> None:
    command = build.stage("train", params={"steps": 4})
    assert model_of(command) == {}
    runs.append("train")
    assert model_of(command) == {"architecture": "gpt2", "model": RAN}


def test_what_a_job_makes_where_nothing_is_named_counts_where_it_begins_anew() -> None:
    usual = build.stage("pretrain", job="jobs.usual")
    assert model_of(usual) == {"architecture": "llama"}
    onward = build.stage("pretrain", job="jobs.usual", inputs={"model": "other"})
    assert model_of(onward, build.stage("other")) == {}
