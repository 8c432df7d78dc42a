"""What may be promoted, of the versions that the registry has."""

from __future__ import annotations

import pytest

from orchestrator.cli import models
from orchestrator.core.errors import ConfigError, NotFoundError
from orchestrator.core.trust.model_versions import ModelVersion
from orchestrator.service.models import check_parity, choose


def version(number: int, parity: str, *aliases: str, **tags: str) -> ModelVersion:
    said = {"orchestrator.key": "k", "parity": parity, **tags}
    return ModelVersion(name="chat", number=number, tags=said, aliases=aliases)


THERE = (version(3, "failed"), version(2, "passed", "candidate"), version(1, "passed"))


def test_the_candidate_is_promoted_unless_a_version_is_named() -> None:
    assert choose("chat", None, THERE).number == 2
    assert choose("chat", 1, THERE).number == 1


@pytest.mark.parametrize(
    ("number", "there", "line"),
    [
        (None, THERE[:1], "model 'chat' has no candidate; versions: 3"),
        (9, THERE, "model 'chat' has no version 9; versions: 3, 2, 1"),
        (None, (), "no model 'chat' is registered; `orchestrator models` lists all"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    number: int | None, there: tuple[ModelVersion, ...], line: str
) -> None:
    with pytest.raises(NotFoundError, match=line):
        choose("chat", number, there)


@pytest.mark.parametrize("parity", ["failed", "pending", "unknown", "elsewhere", "not compared"])
def test_what_was_not_seen_to_be_what_was_trained_needs_a_reason(parity: str) -> None:
    told = version(3, parity, **{"parity.reason": "kl_mean is 3"})
    with pytest.raises(ConfigError, match=rf"version 3 of 'chat': parity is '{parity}' \(kl_mean"):
        check_parity(told, "")
    check_parity(told, "the customer asked for it")
    check_parity(version(2, "passed"), "")


def test_a_version_is_a_row_that_says_what_is_emulated() -> None:
    facts = {"pool": "ascend", "accelerator": "Ascend 910C", "emulated": "true"}
    one = version(2, "passed", "candidate", "champion", **facts, **{"parity.kl_mean": "0.00123"})
    row = dict(zip(models.COLUMNS, models._row(one), strict=True))
    assert row["ALIASES"] == "candidate, champion"
    assert row["ACCELERATOR"] == "Ascend 910C (emulated)"
    assert (row["PARITY"], row["#KL"], row["#TOP-1"]) == ("passed", "0.00123", "-")
