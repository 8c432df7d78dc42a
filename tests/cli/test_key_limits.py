"""What `keys add` and `keys set` take for the limits of a key."""

from __future__ import annotations

import pytest

from orchestrator.cli.key_limits import parsed
from orchestrator.core.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("models=chat,code", "models", ("chat", "code")),
        ("models=[chat, code]", "models", ("chat", "code")),
        ("models=[chat]", "models", ("chat",)),
        ("models=all", "models", ()),
        ("requests=1e3", "requests", 1000),
        ("requests=1_000", "requests", 1000),
        ("requests=none", "requests", None),
        ("priority=-1e1", "priority", -10),
        ("budget=1e-3", "budget", 0.001),
        ("budget=.5", "budget", 0.5),
        ("expires=1.5h", "expires", 5400.0),
    ],
)
def test_values_are_read_as_they_are_meant(word: str, name: str, value: object) -> None:
    assert parsed([word]) == {name: value}


@pytest.mark.parametrize(
    "word",
    [
        "models=",
        "models=,",
        "models=[]",
        "models=chat,,code",
        "models=chat,all",
        "models=[chat",
        "models={chat}",
        "requests=1.5",
        "requests=1e-3",
        "requests=1e400",
        "requests=nan",
        "requests=true",
        "budget=1,5",
        "budget=inf",
        "expires=0s",
        "nothing=1",
    ],
)
def test_what_means_nothing_is_refused_and_opens_nothing(word: str) -> None:
    with pytest.raises(ConfigError, match="write"):
        parsed([word])
