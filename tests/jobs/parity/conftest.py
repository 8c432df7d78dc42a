"""A trained model, what the reference pass says of it, its export, and how to ask the gate."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.data.dataset import read_facts
from jobs.data.splits import TEST
from jobs.export import export
from jobs.parity import gate, reference
from jobs.parity.reading import Reference, read
from tests.jobs.local_context import EMULATED, LocalContext

ENGINE = "jobs.engines.embedded.EmbeddedEngine"
CONFIG = yaml.safe_load((Path(__file__).parents[3] / "conf/job/parity.yaml").read_text())
PARAMS: dict[str, Any] = CONFIG["params"]
LIMITS: dict[str, dict[str, float]] = PARAMS["limits"]
SERVING = replace(EMULATED, pool="ascend", accelerator="Ascend 910C", vendor="Huawei")


@dataclass(frozen=True)
class Case:
    """What the gate compares."""

    trained: Path
    reference: Path
    exported: Path

    @property
    def read(self) -> Reference:
        return read(self.reference)


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory, sums: Path, undisturbed: LocalContext) -> Case:
    trained = undisturbed.output
    asked = LocalContext(
        folder=tmp_path_factory.mktemp("reference"), inputs={"data": sums, "model": trained}
    )
    reference.measure(asked, questions=min(60, read_facts(sums).rows[TEST]), max_tokens=4)
    made = LocalContext(folder=tmp_path_factory.mktemp("export"), inputs={"model": trained})
    export(made, format="bf16")
    return Case(trained, asked.output, made.output)


@pytest.fixture
def copy(case: Case, tmp_path: Path) -> Path:
    """A copy of the export, to be spoilt."""
    return Path(shutil.copytree(case.exported, tmp_path / "spoilt"))


@pytest.fixture
def context(case: Case, tmp_path: Path) -> Callable[..., LocalContext]:
    """Return how to make the context of a gate."""

    def make(model: Path | None = None) -> LocalContext:
        inputs = {"reference": case.reference, "model": model or case.exported}
        return LocalContext(folder=tmp_path / "gate", inputs=inputs, hardware=SERVING)

    return make


def check(ctx: LocalContext, **params: Any) -> dict[str, float]:
    return dict(gate.check(ctx, **{**PARAMS, "engine": ENGINE, **params}))
