"""Counters of memory errors, as the makers' tools print them: foreign tools stand on PATH."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from jobs.qualification import memory_errors
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench
from jobs.qualification.memory_errors import (
    ErrorCounts,
    UnknownCountsError,
    counted,
    judged,
    watched,
)
from tests.jobs.local_context import LocalContext

CONF = Path(__file__).parents[3] / "conf"
OF_NPU = """
        NPU ID                         : {0}
        Chip Count                     : 1

        DDR Single Bit Error Count     : 0
        DDR Double Bit Error Count     : 0
        HBM Single Bit Error Count     : {1}
        HBM Double Bit Error Count     : {2}
        HBM Single Bit Aggregate Total Err Cnt : 41
        HBM Double Bit Aggregate Total Err Cnt : 7
"""
NPU = f"""
[ "$2" = -l ] && printf '\\tNPU ID : 0\\n\\tNPU ID : 3\\n' && exit
[ "$3" = ecc ] && [ "$5" = 0 ] && cat <<END && exit
{OF_NPU.format(0, 2, 0)}
END
cat <<END
{OF_NPU.format(3, 0, 1)}
END
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def install(folder: Path, name: str, text: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


def facts(chip: str) -> tuple[list[str], str]:
    """What the file of a chip says."""
    with initialize_config_dir(str(CONF), version_base=None):
        said = compose(f"accelerator/{chip}").accelerator
    return list(said.memory_errors), said.memory_errors_pattern


def test_each_maker_s_own_words_are_read(tools: Path) -> None:
    install(tools, "nvidia-smi", "printf '0, 0\\n12, 1\\n'")
    assert counted(*facts("h100")) == ErrorCounts(12, 1)
    install(tools, "npu-smi", NPU)
    for chip in ("ascend_910b", "ascend_950pr"):
        assert counted(*facts(chip)) == ErrorCounts(2, 1)
    _, pattern = facts("mi300x")
    assert counted(["printf", "ue: 0\\nce: 3\\nue: 1\\nce: 0\\n"], pattern) == ErrorCounts(3, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo '[N/A], [N/A]'", "'nvidia-smi' tells no counters: [N/A], [N/A]"),
        ("echo away; exit 9", "'nvidia-smi' ended with 9: away"),
        ("exec sleep 60", "'nvidia-smi' did not end within 0.2 s"),
        ("", "'nvidia-smi' is not installed"),
    ],
)
def test_what_nobody_tells_is_a_limit_with_its_reason(
    tools: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr(memory_errors, "SECONDS", 0.2)
    if text:
        install(tools, "nvidia-smi", text)
    with pytest.raises(UnknownCountsError) as raised:
        counted(*facts("h100"))
    assert str(raised.value) == why
    assert judged(ErrorCounts(), why) == (LIMITED, f"nobody tells how many there were: {why}")


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ("0, 0", "0, 0", PASSED),
        ("5, 0", "5, 0", PASSED),
        ("5, 0", "6, 0", LIMITED),
        ("0, 2", "0, 2", LIMITED),
        ("0, 0", "0, 1", FAILED),
        ("5, 2", "6, 3", FAILED),
    ],
)
def test_errors_that_come_while_the_checks_run_are_told(
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    status: str,
) -> None:
    monkeypatch.setattr(Bench, "real", property(lambda _: True))
    bench = Bench(LocalContext(folder=tmp_path))
    install(tools, "nvidia-smi", f"echo '{before}'")
    with watched(bench, *facts("h100")):
        install(tools, "nvidia-smi", f"echo '{after}'")
    assert [(one.check, one.status) for one in bench.findings] == [("memory errors", status)]


def test_what_stands_in_for_a_chip_counts_none_and_one_worker_of_a_node_looks(
    tmp_path: Path,
) -> None:
    for context in (LocalContext(folder=tmp_path), LocalContext(folder=tmp_path, local_rank=1)):
        bench = Bench(context)
        for command in (["nvidia-smi"], []):
            with watched(bench, command, "x"):
                pass
        assert [one.status for one in bench.findings] == [SKIPPED, SKIPPED][
            context.local_rank * 2 :
        ]


def test_counters_that_no_command_tells_are_a_limit_of_a_chip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "real", property(lambda _: True))
    bench = Bench(LocalContext(folder=tmp_path))
    with watched(bench, [], ""):
        pass
    assert [one.status for one in bench.findings] == [LIMITED]
    assert "no command is known" in bench.findings[0].note
