"""Names and values that MLflow takes, whatever a user wrote."""

from __future__ import annotations

import posixpath
import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.mlflow_tracker import fields


@given(st.text(max_size=300))
def test_every_name_is_mended_to_one_that_mlflow_takes(text: str) -> None:
    name = fields.name(text)
    assert re.match(r"^[/\w.\- :]*$", name)
    assert posixpath.normpath(name) == name
    assert name != "."
    assert not name.startswith(("..", "/"))
    assert 0 < len(name) <= fields.MAX_NAME


def test_a_good_name_stays_as_it_is() -> None:
    assert fields.name("train/loss.total-1 a:b") == "train/loss.total-1 a:b"


def test_a_long_value_says_that_it_was_cut() -> None:
    assert fields.cut("x" * 20, 10) == "xxxx [cut]"
    assert fields.cut("x" * 10, 10) == "x" * 10


def test_params_are_flat_with_lists_as_text() -> None:
    config = {"a": {"b": 1, "c": [1, {"d": None}]}, "e": {}, "f": "text"}
    assert fields.params(config) == {
        "a.b": "1",
        "a.c": '[1, {"d": null}]',
        "e": "{}",
        "f": "text",
    }


def test_the_signatures_of_failures_are_no_params_of_a_run():
    config = {"seed": 1, "signatures": {"oom": {"pattern": "x"}}}
    assert fields.run_params(config) == {"seed": "1"}


def test_a_stage_without_parameters_has_no_params():
    assert fields.params({}) == {}
    assert fields.params({"model": {}, "steps": 2}) == {"model": "{}", "steps": "2"}
