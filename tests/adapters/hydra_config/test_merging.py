"""What Hydra's loader composes, in less work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from orchestrator.adapters import hydra_config
from orchestrator.adapters.hydra_config.merging import Loader, lean_choices
from tests.counting import lines_run

Write = Callable[[str, str], Path]

PLACES = ("a", "a.b", "a.b.c", "a.c", "d", "d.e", "_global_")
VALUES = ({"x": 1}, {"b": {"y": 2, "c": 3}}, {"c": [1, 2]}, {"x": None, "e": {"z": "${a.x}"}}, {})


@settings(max_examples=20, deadline=None)
@given(
    entries=st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(range(len(VALUES)))), max_size=7
    ),
    at=st.integers(0, 7),
)
def test_it_composes_what_hydra_composes_or_says_what_hydra_says(
    entries: list[tuple[str, int]], at: int
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        defaults = [f"/g{number}@{place}" for number, (place, _) in enumerate(entries)]
        for number, (_, value) in enumerate(entries):
            (root / f"g{number}.yaml").write_text(
                OmegaConf.to_yaml(OmegaConf.create(VALUES[value]))
            )
        defaults.insert(min(at, len(entries)), "_self_")
        main = OmegaConf.create({"defaults": defaults, "d": {"own": 1}, "a": {"b": {"c": 0}}})
        (root / "main.yaml").write_text(OmegaConf.to_yaml(main))
        with lean_choices():
            ours = composed(Loader, root)
        assert ours == composed(ConfigLoaderImpl, root)


def composed(kind: type[ConfigLoaderImpl], root: Path) -> str:
    """Return the config as text, which shows the order of its keys, or why there is none."""
    version.setbase("1.3")
    Plugins.instance()
    try:
        config = kind(create_config_search_path(str(root))).load_configuration(
            "main", [], RunMode.RUN
        )
    except HydraException as error:
        return str(error)
    return OmegaConf.to_yaml(config)


def test_choices_of_a_defaults_list_that_refer_to_others_are_filled_in(
    folder: Path, write: Write
) -> None:
    lines = ["defaults:", "  - config", "  - more: ${fleet}", "  - _self_"]
    write("own.yaml", "\n".join([*lines, "  - override fleet: r2"]))
    write("more/r2.yaml", "# @package tags\nteam: core\n")
    made = hydra_config.compose(["pipeline=tiny"], config_dir=folder, config_name="own")
    assert made.tags == {"team": "core"}


def test_composing_twice_the_stages_is_twice_the_work(folder: Path, write: Write) -> None:
    def work(count: int) -> int:
        names = [f"s{number}" for number in range(count)]
        lines = ["defaults:", *(f"  - /job@stages.{name}: noop" for name in names), "  - _self_"]
        write(f"pipeline/p{count}.yaml", "\n".join([*lines, "name: many"]))
        words = [f"pipeline=p{count}"]
        return lines_run(lambda: hydra_config.compose(words, config_dir=folder))

    nothing = work(1)
    assert work(40) - nothing < 2.5 * (work(20) - nothing)
