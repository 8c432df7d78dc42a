"""A config of an earlier run, with some values changed."""

from __future__ import annotations

import pytest

from orchestrator.adapters.hydra_config import changed
from orchestrator.core.errors import ConfigError

CONFIG = {"roles": {"serve": "ascend"}, "pipeline": {"stages": {"serve": {"endpoint": {}}}}}


def test_values_are_set_where_they_stand_and_the_original_stays() -> None:
    words = ["roles.serve=nvidia", "pipeline.stages.serve.endpoint.rollout={steps: [100]}"]
    made = changed(CONFIG, words)
    assert made["roles"] == {"serve": "nvidia"}
    assert made["pipeline"]["stages"]["serve"]["endpoint"] == {"rollout": {"steps": [100]}}  # type: ignore[index]
    assert CONFIG["roles"] == {"serve": "ascend"}
    assert changed(CONFIG, [f"++{word}" for word in words]) == made, "as for Hydra"
    deep = changed(CONFIG, ["pipeline.stages.serve.endpoint.rollout.hold=5"])
    assert deep["pipeline"]["stages"]["serve"]["endpoint"] == {"rollout": {"hold": 5}}  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5", 5),
        ("010", "010"),
        ("true", True),
        ("null", None),
        ("[1e-3,a]", [0.001, "a"]),
        ("'1e-3'", "1e-3"),
        ("s3://bucket/a-b_c.d", "s3://bucket/a-b_c.d"),
        ("{steps: [5, 100], hold: 1e2}", {"steps": [5, 100], "hold": 100.0}),
    ],
)
def test_values_are_read_as_launch_reads_them(text: str, value: object) -> None:
    assert changed(CONFIG, [f"roles.serve={text}"])["roles"] == {"serve": value}


def test_a_section_that_is_newer_than_the_config_may_be_set() -> None:
    assert changed(CONFIG, ["attempts.hang=7"])["attempts"] == {"hang": 7}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nvidia", "'nvidia' is no override; write KEY=VALUE"),
        ("rules.serve=nvidia", "rules.serve: there is no such place"),
        ("roles.serve.pool=nvidia", "roles.serve.pool: there is no such place"),
        ("roles.serve={", "roles.serve: '{' is no value"),
        ("roles.serve=&a [*a]", "roles.serve: '&a [*a]' is no value"),
        ("roles.serve=a=b", "roles.serve: 'a=b' is no value; quote it"),
        ("roles.serve=a,b", "roles.serve: 'a,b' has several values; write a list as [a,b]"),
        ("roles.serve=" + "9" * 5000, f"roles.serve: '{'9' * 80}'... (5000 characters) is no val"),
    ],
)
def test_what_can_not_be_set_is_told(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(CONFIG, [word, "roles.serve=x"])
    assert said in str(caught.value)
