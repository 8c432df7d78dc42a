"""Profiles: how patient everything is, on a cluster and on a laptop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.adapters import hydra_config
from orchestrator.adapters.hydra_config.composer import packaged
from orchestrator.core.errors import ConfigError
from orchestrator.core.settings import (
    PATIENT,
    AttemptSettings,
    DatabaseSettings,
    GatewaySettings,
    Settings,
)
from orchestrator.core.trust.qualification import Rules

SECTIONS = ("attempts", "cluster", "database", "gateway", "qualification", "storage", "tracking")


def values(profile: str) -> dict[str, float]:
    """Return what a shipped profile says itself, by path."""
    text = (packaged() / "profile" / f"{profile}.yaml").read_text(encoding="utf-8")
    return dict(leaves(yaml.safe_load(text)))


def leaves(section: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        elif key != "defaults":
            yield f"{path}{key}", value


def at(settings: Settings, path: str) -> float:
    found: Any = settings
    for name in path.split("."):
        found = getattr(found, name)
    return float(found)


def composed(*words: str) -> Settings:
    return hydra_config.compose(["pipeline=noop", *words])


def test_the_profile_of_a_cluster_is_the_default_and_says_the_defaults() -> None:
    settings = composed()
    assert settings.attempts == PATIENT == AttemptSettings()
    assert settings.database == DatabaseSettings()
    assert settings.gateway == GatewaySettings()
    assert settings.qualification == Rules()
    bare = hydra_config.parse(without(settings, *values("cluster")))
    assert replace(bare, resolved={}) == replace(settings, resolved={}, overrides=())
    assert composed("profile=cluster").resolved == settings.resolved


def without(settings: Settings, *paths: str) -> dict[str, Any]:
    """Return the resolved config without what a profile says: as it was before there were any."""
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(settings.resolved)))
    for path in paths:
        *parents, last = path.split(".")
        holder = config
        for name in parents:
            holder = holder[name]
        del holder[last]
    return {name: section for name, section in config.items() if section != {} or name == "tags"}


def test_a_laptop_is_less_patient_and_else_the_same() -> None:
    cluster, laptop = composed(), composed("profile=laptop")
    shorter = values("laptop")
    assert shorter.keys() < values("cluster").keys()
    for path in values("cluster"):
        assert at(laptop, path) == shorter.get(path, at(cluster, path)), path
        assert path not in shorter or 0 < at(laptop, path) < at(cluster, path), path
    same = {name: getattr(cluster, name) for name in SECTIONS}
    assert replace(laptop, **same, resolved={}, overrides=()) == replace(
        cluster, resolved={}, overrides=()
    )


def test_whatever_else_says_a_value_says_it_in_the_place_of_the_profile(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text("kind: ray\npatience: 300\n")
    words = ["pipeline=noop", "profile=laptop", "cluster=mine", "attempts.hang=7"]
    settings = hydra_config.compose(words, config_dir=tmp_path)
    assert (settings.cluster.patience, settings.attempts.hang) == (300.0, 7.0)
    assert settings.database.patience == values("laptop")["database.patience"]


def test_a_profile_of_ones_own_goes_on_from_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    mine = "# @package _global_\ndefaults: [cluster, _self_]\nattempts: {shrink: 900}\n"
    (tmp_path / "profile" / "mine.yaml").write_text(mine)
    settings = hydra_config.compose(["pipeline=noop", "profile=mine"], config_dir=tmp_path)
    assert settings.attempts == replace(PATIENT, shrink=900.0)


@pytest.mark.parametrize("word", ["attempts.meet=0", "attempts.nap=1", "profile=desk"])
def test_what_is_no_wait_is_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        composed(word)
