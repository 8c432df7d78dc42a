"""Every chip is one file of published facts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.adapters import hydra_config
from orchestrator.core.spec.hardware import Accelerator

FILES = sorted((Path(__file__).parents[2] / "conf" / "accelerator").glob("*.yaml"))

# name: GB, TB/s, dense BF16 and FP8 TFLOP/s, GB/s of links; None is not published.
FIGURES: dict[str, tuple[float | None, ...]] = {
    "a100": (80, 2.04, 312, None, 600),
    "h100": (80, 3.35, 989, None, 900),
    "h200": (141, 4.8, 989, None, 900),
    "h800": (80, 3.35, 989, None, 400),
    "h20": (96, 4.0, 148, 296, 900),
    "mi300x": (192, 5.3, 1307, None, 896),
    "ascend_910b": (64, None, 304, None, None),
    "ascend_910c": (64, 1.6, 376, None, 392),  # of a die, which is what software counts
    "ascend_950pr": (128, 1.6, None, 1000, 2000),
    "ascend_950dt": (144, 4.0, None, 1000, 2000),
    "mlu590": (96, None, None, None, None),
    "s4000": (48, 0.768, 200, None, 240),
    "s5000": (80, 1.6, None, 1000, 784),
    "k100_ai": (64, None, None, None, None),
    "bw1000": (64, None, None, None, None),
    "p800": (96, 1.8, 250, None, None),
    "ppu": (96, None, None, None, 700),
    "c500": (64, 1.8, None, None, None),
    "c550": (64, 1.8, None, None, None),
    "cpu": (None, None, None, None, None),
}
PRICES = {"a100": 0.80, "h100": 1.99, "h200": 2.50, "h800": 2.00}


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Accelerator]:
    """All chips, each in a pool of one fleet."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "fleet").mkdir()
    defaults = "".join(
        f"  - /accelerator@fleet.pools.{file.stem}.accelerator: {file.stem}\n" for file in FILES
    )
    text = f"# @package _global_\ndefaults:\n{defaults}fleet: {{name: all}}\n"
    (folder / "fleet" / "all.yaml").write_text(text)
    overrides = ["pipeline=deepseek_r1", "fleet=all"]
    settings = hydra_config.compose(overrides, config_dir=folder)
    return {name: pool.accelerator for name, pool in settings.fleet.pools.items()}


def test_the_figures_are_the_published_ones_and_nothing_is_guessed(
    chips: dict[str, Accelerator],
) -> None:
    found = {
        name: (c.memory_gb, c.bandwidth_tbs, c.bf16_tflops, c.fp8_tflops, c.link_gbs)
        for name, c in chips.items()
    }
    assert found == FIGURES


def test_only_published_prices_are_given(chips: dict[str, Accelerator]) -> None:
    priced = {name: chip.price_per_hour for name, chip in chips.items() if chip.price_per_hour}
    assert priced == PRICES


def test_a_chip_serves_what_its_software_reads_whatever_it_computes_in(
    chips: dict[str, Accelerator],
) -> None:
    assert chips["mi300x"].formats == ("fp8", "bf16")
    assert chips["mi300x"].computes == ("fp8_fnuz", "bf16")
    assert all("fp8_fnuz" not in chip.formats for chip in chips.values())  # nobody writes it
    assert all("bf16" in chip.formats for chip in chips.values())
    hopper = [chips[name].formats for name in ("h100", "h200", "h800", "h20")]
    assert hopper == [("fp8", "bf16", "int8")] * 4


def test_every_chip_says_where_its_figures_come_from(chips: dict[str, Accelerator]) -> None:
    assert all(chip.source for chip in chips.values())


def test_several_makers_answer_to_cuda(chips: dict[str, Accelerator]) -> None:
    makers = {chip.vendor for chip in chips.values() if chip.device == "cuda"}
    assert makers == {"nvidia", "amd", "hygon", "baidu-kunlun", "t-head", "metax"}


def test_chips_of_one_maker_differ_in_figures_alone(chips: dict[str, Accelerator]) -> None:
    shared = ("device", "backend", "resource", "visible_devices", "torch_package", "vllm_plugin")
    seen: dict[str, tuple[object, ...]] = {}
    for chip in chips.values():
        facts = tuple(asdict(chip)[name] for name in shared)
        assert seen.setdefault(chip.vendor, facts) == facts


@pytest.mark.parametrize(("meet", "seconds"), [(60.0, "120"), (600.5, "601"), (9_000.0, "7200")])
def test_workers_of_ascend_wait_for_each_other_as_long_as_a_gang_may_take_to_meet(
    chips: dict[str, Accelerator], meet: float, seconds: str
) -> None:
    for name, chip in chips.items():
        limits = chip.limits(operation=90.5, joining=meet)
        ascend = {"HCCL_EXEC_TIMEOUT": "91", "HCCL_CONNECT_TIMEOUT": seconds}
        assert limits == (ascend if chip.vendor == "huawei" else {}), name
