"""Completion: what may stand for the last word."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters import hydra_config

LEARN = "pipeline.stages.learn"
CHIP = "accelerator@fleet.pools.nvidia.accelerator"
OFFERED = [
    ("roles.train=", ["roles.train=ascend", "roles.train=nvidia"]),
    ("roles.serve=n", ["roles.serve=nvidia"]),
    ("fallbacks.train=", ["fallbacks.train=[ascend", "fallbacks.train=[nvidia"]),
    ("fallbacks.train=[nvidia,a", ["fallbacks.train=[nvidia,ascend"]),
    ("roles.", ["roles.prepare=", "roles.serve=", "roles.train="]),
    ("pipe", ["pipeline.", "pipeline="]),
    ("pipeline=ti", ["pipeline=tiny"]),
    ("pipeline.stages.l", ["pipeline.stages.learn."]),
    (f"{LEARN}.params.", [f"{LEARN}.params.lr=", f"{LEARN}.params.steps="]),
    (f"{LEARN}.limits.a", [f"{LEARN}.limits.attempts="]),
    (f"{LEARN}.cache=", [f"{LEARN}.cache=false", f"{LEARN}.cache=true"]),
    ("cluster.kind=", ["cluster.kind=local", "cluster.kind=ray"]),
    ("seed=", ["seed=0"]),
    (f"{CHIP}=h10", [f"{CHIP}=h100"]),
    ("~see", ["~seed="]),
    ("nothing.like=", []),
]


@pytest.mark.parametrize(("word", "offered"), OFFERED)
def test_a_word_is_completed(folder: Path, word: str, offered: list[str]) -> None:
    assert hydra_config.complete(["pipeline=tiny", word], config_dir=folder) == offered


def test_pools_are_those_of_the_fleet_typed_before(folder: Path) -> None:
    words = ["pipeline=tiny", "fleet=r2", "roles.train=a"]
    assert hydra_config.complete(words, config_dir=folder) == [
        "roles.train=a100",
        "roles.train=ascend-910c",
    ]


def test_the_folder_is_found_among_the_words(folder: Path) -> None:
    for words in (["--config-dir", str(folder)], [f"--config-dir={folder}"]):
        assert hydra_config.complete([*words, "pipeline=ti"]) == ["pipeline=tiny"]


def test_no_word_offers_all_groups_and_keys(folder: Path) -> None:
    found = hydra_config.complete(["pipeline=tiny", ""], config_dir=folder)
    assert {"pipeline=", "fleet=", "seed=", "roles.", "experiment="} <= set(found)
    assert not any("hydra" in word for word in found)


def test_files_that_do_not_compose_still_offer_groups(folder: Path) -> None:
    (folder / "pipeline" / "broken.yaml").write_text("name: [")
    words = ["pipeline=broken", "fleet=r2"]
    assert hydra_config.complete(words, config_dir=folder) == ["fleet=r2"]
    assert hydra_config.complete(["fleet="], config_dir=folder / "nowhere") == []
