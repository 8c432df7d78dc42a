"""What every engine server must have: each file of `conf/engine`, on the chips of each maker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from orchestrator.adapters import hydra_config
from orchestrator.adapters.rayserve.engine_figures import read
from orchestrator.adapters.rayserve.supervision import Supervision
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.engine_checks import PLACES, refused_options
from orchestrator.core.spec.engine_command import (
    ReplicaPart,
    argv_of,
    chips_of,
    environment_of,
    files_of,
    filled,
    joining_of,
)
from orchestrator.core.spec.engines import CPU, EngineSpec, option_name, split_of
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Endpoint
from orchestrator.supervisor.record import wait
from tests.adapters.rayserve.test_supervision import SECONDS, SERVER, served
from tests.build import accelerator, deployment

CONF = Path(__file__).parents[2] / "conf"
ENGINES = sorted(file.stem for file in (CONF / "engine").glob("*.yaml"))
ASKS_FOR_NO_KEY = {"mindie"}
SPLITS = ("tensor", "pipeline", "data")
OF_THE_CHIP = ("mem", "cache", "type", "eager", "graph", "max", "swap", "offload")
FILLED = {**dict.fromkeys(PLACES, "x"), "port": "7", "model": "/m", **chips_of(2)}

every_engine = pytest.mark.parametrize("name", ENGINES)


@cache
def spec_of(name: str) -> EngineSpec:
    settings = hydra_config.compose(
        ["pipeline=smoke", f"pipeline.stages.serve.endpoint.engine={name}"]
    )
    endpoint = settings.pipeline.stages[-1].endpoint
    assert endpoint is not None
    assert endpoint.server is not None
    return endpoint.server


def pool_of(maker: str) -> Pool:
    emulation = Emulation(device=CPU) if maker == CPU else None
    return Pool(
        name="p", accelerator=accelerator(vendor=maker, device="cuda"), emulation=emulation
    )


def pools_of(name: str) -> Iterator[tuple[EngineSpec, Pool]]:
    """Yield an engine with a pool of each of its makers."""
    spec = spec_of(name)
    for maker in spec.makers:
        yield spec, pool_of(maker)


@every_engine
def test_every_command_knows_it_by_the_name_of_its_file(name: str) -> None:
    assert spec_of(name).name == name


@every_engine
def test_its_makers_are_those_of_the_chips_and_its_dialects_of_formats_that_it_reads(
    name: str,
) -> None:
    files = (CONF / "accelerator").glob("*.yaml")
    vendors = {yaml.safe_load(file.read_text())["vendor"] for file in files}
    for maker, facts in spec_of(name).makers.items():
        assert maker in {*vendors, CPU}
        assert set(facts.dialects) <= set(facts.formats)


@every_engine
def test_it_starts_over_a_model_on_the_chips_of_each_of_its_makers(name: str) -> None:
    for spec, pool in pools_of(name):
        written = files_of(spec, pool, {}, {**FILLED, "key": "k"})
        texts = [*argv_of(spec, pool, {}, FILLED), *written.values()]
        assert "/m" in " ".join(texts)
        assert environment_of(spec, pool, FILLED)


@every_engine
def test_on_a_chip_it_decides_itself_of_memory_types_and_how_it_computes(name: str) -> None:
    """What a stand-in among many on a host is held to would starve a chip."""
    for spec, pool in pools_of(name):
        if pool.emulation is None:
            options = " ".join(spec.all_options(pool, {}))
            assert not [word for word in OF_THE_CHIP if word in options]


@every_engine
def test_its_processes_on_several_nodes_meet_at_the_first(name: str) -> None:
    for spec, pool in pools_of(name):
        for rank in (0, 1) if spec.nodes else ():
            part = ReplicaPart(rank=rank, nodes=2, leader="10.0.0.1", ports=(5, 6))
            places = {**FILLED, **part.places("eth0")}
            words = argv_of(spec, pool, {}, places, part)
            assert {"/m", str(rank)} <= {*words}
            assert any("10.0.0.1" in word for word in words)
            assert "eth0" in joining_of(spec, places, part).values()


@every_engine
def test_it_takes_a_key_from_nobody_s_list_of_processes(name: str) -> None:
    for spec, pool in pools_of(name):
        written = files_of(spec, pool, {}, {**FILLED, "key": "secret"}).values()
        takes = bool(spec.key_variable) or any("secret" in text for text in written)
        assert takes != (name in ASKS_FOR_NO_KEY)
        assert "secret" not in " ".join(argv_of(spec, pool, {}, {**FILLED, "key": "secret"}))


@every_engine
def test_users_may_set_how_it_is_spread_and_none_of_its_own_options_is_refused(name: str) -> None:
    for spec, pool in pools_of(name):
        assert list(refused_options(spec, spec.all_options(pool, {}))) == []
        asked = [
            spec.concurrency,
            *(getattr(spec.parallel, split) for split in (*SPLITS, "shared")),
        ]
        assert list(refused_options(spec, dict.fromkeys(filter(None, asked), 2))) == []
        assert spec.requests_at_once({spec.concurrency: 7}) == 7


@every_engine
def test_a_model_is_spread_over_chips_by_its_own_options(name: str) -> None:
    spec = spec_of(name)
    assert split_of(spec, {}, 4).tensor == 4
    for split in SPLITS:
        if option := option_name(getattr(spec.parallel, split)):
            assert getattr(split_of(spec, {option: 4}, 4), split) == 4


@every_engine
def test_its_figures_tell_of_requests_tokens_and_the_cache(name: str) -> None:
    names = spec_of(name).figures
    labels = ",".join(f'{label}="10"' for label in names.cache_labels)
    text = f"{names.running} 3\n{names.waiting} 2\n{names.cache_used} 0.5\n"
    text += "".join(f"{counter} 5\n" for counter in (*names.tokens, *names.suspect))
    text += f"{names.cache_size}{{{labels}}} 100\n" if names.cache_size else ""
    figures = read(text, names)
    assert (figures.running, figures.waiting, figures.cache_used) == (3.0, 2.0, 0.5)
    assert figures.tokens == 5.0 * len(names.tokens) > 0, "one that hangs is found by these"
    assert figures.suspect == 5.0 * len(names.suspect)
    assert figures.cached_tokens == (50.0 if names.cache_size else 0.0)


@every_engine
def test_new_weights_are_told_by_their_folder(name: str) -> None:
    steps = spec_of(name).update
    bodies = [filled(step.body, {"folder": "/w", "version": "v2"}) for step in steps]
    assert bool(steps) == ("/w" in str(bodies))


# --- live: a small server in the place of its own ---------------------------------------------


def in_its_place(spec: EngineSpec) -> EngineSpec:
    """Return the engine with a small server that answers at all of its paths."""
    makers = {name: replace(maker, command=(), follower=()) for name, maker in spec.makers.items()}
    figures = spec.figures
    names = f"{figures.running} {figures.waiting} {figures.tokens[-1]}"
    return replace(
        spec,
        command=("{python}", str(SERVER), "{port}", "{model}", "{name}", "well"),
        environment={**spec.environment, "FAKE_KEY": "secret", "FAKE_FIGURES": names},
        makers=makers,
        grace=2.0,
    )


def deployed(spec: EngineSpec) -> Deployment:
    maker = next(iter(spec.makers))
    endpoint = Endpoint(name="chat", engine=spec.name, server=in_its_place(spec), updates=True)
    plain = deployment("chat", token="secret", pool=pool_of(maker))  # noqa: S106 - a test's own
    return replace(plain, endpoint=endpoint)


@every_engine
@pytest.mark.slow
def test_a_supervisor_starts_asks_watches_and_updates_it(name: str, tmp_path: Path) -> None:
    old, new = tmp_path / "v1", tmp_path / "v2"
    old.mkdir()
    new.mkdir()
    spec = spec_of(name)
    supervision = Supervision(deployed(spec), old, "127.0.0.1")
    supervision.start()
    assert supervision._process is not None
    first = supervision._process.pid
    assert wait(lambda: supervision.figures.tokens is not None, SECONDS), "its figures are read"
    supervision.update(new, "v2")
    assert served(supervision) == str(new)
    assert (supervision._process.pid == first) == bool(spec.update), "else it is started anew"
    assert supervision.fault == ""
    supervision.stop()
