"""What Hydra's users know: sweeps, `--cfg`, `--info`."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters import hydra_config
from orchestrator.core.errors import ConfigError
from orchestrator.core.settings import Settings

Compose = Callable[..., Settings]


def test_a_sweep_takes_every_combination_in_the_order_of_hydra() -> None:
    assert hydra_config.sweep(["pipeline=r2", "roles.serve=nvidia,ascend", "seed=range(1,3)"]) == [
        ("pipeline=r2", "roles.serve=nvidia", "seed=1"),
        ("pipeline=r2", "roles.serve=nvidia", "seed=2"),
        ("pipeline=r2", "roles.serve=ascend", "seed=1"),
        ("pipeline=r2", "roles.serve=ascend", "seed=2"),
    ]


def test_a_sweep_over_a_group_takes_a_glob_and_a_removal_stays_one() -> None:
    assert hydra_config.sweep(["fleet=glob(*)", "~tags"]) == [
        ("fleet=local", "~tags"),
        ("fleet=r2", "~tags"),
        ("fleet=rehearsal", "~tags"),
    ]


def test_a_list_is_no_sweep() -> None:
    assert hydra_config.sweep(["fallbacks.train=[a,b]"]) == [("fallbacks.train=[a,b]",)]


def test_a_sweep_that_has_no_end_or_can_not_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no end of values"):
        hydra_config.sweep(["seed=interval(0,1)"])
    with pytest.raises(ConfigError, match="is no override"):
        hydra_config.sweep(["seed=[", "x=1,2"])


def test_a_shown_config_composes_again_to_the_same(
    folder: Path, tmp_path: Path, compose: Compose
) -> None:
    overrides = ["pipeline=tiny", "roles.train=ascend", "pipeline.stages.learn.limits.cost=3"]
    for resolve in (False, True):
        text = hydra_config.show("job", overrides, config_dir=folder, resolve=resolve)
        again = tmp_path / f"again-{resolve}"
        again.mkdir()
        (again / "config.yaml").write_text(text)
        settings = hydra_config.compose([], config_dir=again)
        assert settings.resolved == compose(*overrides[1:]).resolved


def test_a_part_of_a_config_is_shown(folder: Path) -> None:
    text = hydra_config.show("job", ["pipeline=tiny"], config_dir=folder, package="roles")
    assert text == "prepare: nvidia\ntrain: nvidia\nserve: ascend\n"
    text = hydra_config.show("job", ["pipeline=tiny"], config_dir=folder, package="seed")
    assert text.strip() == "0"
    with pytest.raises(ConfigError, match="'nope' is not in the config"):
        hydra_config.show("job", ["pipeline=tiny"], config_dir=folder, package="nope")


def test_the_config_of_hydra_is_shown_with_the_overrides(folder: Path) -> None:
    text = hydra_config.show("hydra", ["pipeline=tiny", "seed=4"], config_dir=folder)
    assert "- pipeline=tiny\n    - seed=4" in text


def test_what_does_not_compose_is_not_shown(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'seeed'"):
        hydra_config.show("job", ["pipeline=tiny", "seeed=4"], config_dir=folder)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("defaults", "pipeline/tiny"),
        ("defaults-tree", "fleet: local"),
        ("config", "seed: 4"),
        ("searchpath", "--config-dir"),
        ("plugins", "BasicSweeper"),
        ("all", "Defaults Tree"),
    ],
)
def test_hydra_tells_how_a_config_was_composed(folder: Path, kind: str, part: str) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    overrides = ["pipeline=tiny", "seed=4", "pipeline.stages.learn.limits.cost=3"]
    assert part in hydra_config.info(kind, overrides, config_dir=folder)
    assert (logging.getLogger().handlers[:], logging.getLogger().level) == before


def test_information_that_there_is_not_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="did you mean 'defaults'"):
        hydra_config.info("default", [])


def test_parsing_and_composing_import_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from orchestrator.adapters import hydra_config as h;"
        "assert 'hydra' not in sys.modules, 'parse needs no Hydra';"
        f"h.compose(['pipeline=tiny'], config_dir=__import__('pathlib').Path({str(folder)!r}));"
        "assert not {'ray', 'torch', 'mlflow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
