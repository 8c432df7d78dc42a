"""What the reference pass found is read as it was written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from jobs.data.dataset import read_facts
from jobs.parity.comparison import NAMES
from jobs.parity.reading import FACTS_NAME, NORMS_NAME, read, write
from jobs.parity.reference import measure
from jobs.parity.weight_norms import GROUPS
from tests.jobs.local_context import LocalContext
from tests.jobs.parity.conftest import Case


def test_a_reference_with_experts_is_read_as_it_was_written(case: Case, tmp_path: Path) -> None:
    before = case.read
    experts = tuple(
        np.full((question.places, 2, 2), at, np.int32)
        for at, question in enumerate(before.questions)
    )
    write(replace(before, experts=experts), tmp_path)
    after = read(tmp_path)
    assert after.scores == before.scores
    assert after.questions == before.questions
    assert all((a == b).all() for a, b in zip(after.experts, experts, strict=True))
    for one, other in zip(after.floor, before.floor, strict=True):
        assert (one.name, one.precision) == (other.name, other.precision)
        pairs = [(getattr(x.comparison, n) for x in (one, other)) for n in NAMES]
        assert all((a == b).all() for a, b in pairs)


def test_the_floor_is_the_same_model_in_other_arithmetics_and_batch_shapes(case: Case) -> None:
    passes = {one.name: one for one in case.read.floor}
    assert [*passes] == [
        "float32, another batch shape",
        "bfloat16",
        "bfloat16, another batch shape",
    ]
    noise = {name: float(one.comparison.kl.mean()) for name, one in passes.items()}
    assert noise["float32, another batch shape"] < 1e-9 < noise["bfloat16"] < 1e-3
    assert len(passes["bfloat16, another batch shape"].comparison.differs) == len(
        case.read.questions
    )


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ("floor", "noise floor"),
        ("generation", "generation config"),
        ("tokenizers", "digests of its tokenizer"),
    ],
)
def test_a_pass_of_an_earlier_version_is_refused_with_the_way_out(
    case: Case, tmp_path: Path, fact: str, words: str
) -> None:
    folder = Path(shutil.copytree(case.reference, tmp_path / "old"))
    facts = json.loads((folder / FACTS_NAME).read_text())
    del facts[fact]
    (folder / FACTS_NAME).write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=rf"old' has no {words}.* make it anew"):
        read(folder)
    with pytest.raises(FileNotFoundError, match=r"it has no reference\.json"):
        read(tmp_path)


def test_a_pass_that_kept_less_of_the_weights_is_refused_likewise(
    case: Case, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(case.reference, tmp_path / "old"))
    kept = load_file(folder / NORMS_NAME)
    less = {name: tensor for name, tensor in kept.items() if not name.endswith(GROUPS)}
    assert len(less) < len(kept)
    save_file(less, folder / NORMS_NAME)
    with pytest.raises(ValueError, match=r"old' has no largest weights of groups.* make it anew"):
        read(folder)


def test_a_split_of_fewer_texts_than_are_asked_for_is_told(
    case: Case, sums: Path, tmp_path: Path
) -> None:
    rows = read_facts(sums).rows["test"]
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums, "model": case.trained})
    measure(ctx, questions=rows + 1, places=4, max_tokens=2)
    said = (
        f"split 'test' has {rows} texts, questions={rows + 1} are asked for: the gate is the less"
    )
    assert any(line.startswith(said) for line in ctx.lines)
