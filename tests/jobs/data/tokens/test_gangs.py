"""What gangs of several sizes make of a source, and what they read of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.data.tokens.corpora import RECIPE
from tests.jobs.scripts import printed_by

STEPS = RECIPE["steps"]


@pytest.fixture(scope="module")
def gangs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path, corpus: Path) -> Path:
    """A folder in which gangs have prepared tokens and trained on them."""
    folder = tmp_path_factory.mktemp("gangs")
    prepare = {
        "job": "jobs.data.tokens.preparation.prepare",
        "folder": str(folder / "tokens"),
        "inputs": {"source": str(corpus), "model": str(tokenizer)},
        "params": {"validation": 0.1, "test": 0.0, "part_mb": 0.004},
        "workers": 3,
    }
    for name in ("tokens", "whole", "torn"):
        (folder / name).mkdir()
    attempts = [("whole", "whole", 1, None), ("torn", "first", 2, 7), ("torn", "second", 3, None)]
    specs = [prepare, *(training(folder, *attempt) for attempt in attempts)]
    printed_by("data.tokens.gangs", specs)
    return folder


def training(
    folder: Path, place: str, name: str, workers: int, stop_after: int | None
) -> dict[str, Any]:
    return {
        "job": "tests.jobs.data.tokens.gangs.recorded",
        "folder": str(folder / place),
        "inputs": {"data": str(folder / "tokens" / "output")},
        "params": {**RECIPE, "name": name, "stop_after": stop_after},
        "workers": workers,
    }


def steps(folder: Path, name: str, workers: int) -> list[list[str]]:
    """Return the rows of each step, in order, whoever has read them."""
    ranks = [
        json.loads((folder / f"{name}-{rank}.json").read_text())["steps"]
        for rank in range(workers)
    ]
    return [[row for part in parts for row in part] for parts in zip(*ranks, strict=True)]


def test_a_gang_makes_the_same_files_as_one_worker(gangs: Path, tokens: Path) -> None:
    ours = {path.name: path.read_bytes() for path in (gangs / "tokens" / "output").glob("*.*")}
    theirs = {path.name: path.read_bytes() for path in tokens.glob("*.*")}
    for files in (ours, theirs):  # the source is a parameter there, and an input here
        files.pop("dataset.json")
    assert len(ours) > 9, "there are several parts"
    assert ours == theirs


def test_who_goes_on_with_more_workers_reads_the_rows_of_an_undisturbed_run(gangs: Path) -> None:
    whole = steps(gangs / "whole", "whole", 1)
    assert len(whole) == STEPS
    assert len({row for rows in whole for row in rows}) > 2 * RECIPE["batch_size"]
    assert steps(gangs / "torn", "first", 2) == whole[:7]
    assert steps(gangs / "torn", "second", 3) == whole[5:]


def test_who_goes_on_with_more_workers_learns_what_an_undisturbed_run_learns(gangs: Path) -> None:
    whole = json.loads((gangs / "whole" / "whole-0.json").read_text())["losses"]
    torn = json.loads((gangs / "torn" / "second-0.json").read_text())["losses"]
    assert torn == pytest.approx(whole[5:], rel=1e-3)
