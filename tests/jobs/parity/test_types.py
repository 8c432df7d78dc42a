"""Types of models that the embedded engine has no cache for: transformers alone judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.data.tokenizer import load_tokenizer
from jobs.engines import EMBEDDED, TRANSFORMERS
from jobs.export import export
from jobs.parity import gate, reference
from jobs.parity.comparison import compare
from orchestrator.job import ParityError
from tests.jobs.formats import zoo
from tests.jobs.local_context import LocalContext
from tests.jobs.parity import types_judged
from tests.jobs.parity.conftest import SERVING, Case


def model_of(kind: str, trained: Path, folder: Path) -> Path:
    """Return a small model of random weights, with the tokenizer of a trained one."""
    tokenizer = load_tokenizer(trained)
    sizes = {**zoo.SMALL, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    zoo.save(zoo.small(kind, sizes), folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "engine"),
    [("gemma3", EMBEDDED), ("bloom", TRANSFORMERS), ("mamba", TRANSFORMERS)],
)
def test_an_honest_export_of_any_type_says_what_was_trained(
    kind: str, engine: str, sums: Path, case: Case, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = model_of(kind, case.trained, tmp_path / "model")
    asked = LocalContext(folder=tmp_path / "asked", inputs={"data": sums, "model": model})
    reference.measure(asked, questions=4, max_tokens=3, places=8)
    made = LocalContext(folder=tmp_path / "made", inputs={"model": model})
    export(made, format="fp32")
    inputs = {"reference": asked.output, "model": made.output}
    ctx = LocalContext(folder=tmp_path / "gate", inputs=inputs, hardware=SERVING)
    answered = gate._answered(ctx, gate.AUTO, {})
    assert (answered.engine, answered.computed) == (engine, "float32")
    assert bool(answered.refusal) == (engine == TRANSFORMERS)
    compared = compare(answered.reference.responses, answered.responses)
    assert float(compared.kl.max()) < 1e-4
    assert not compared.differs.any()
    assert max(answered.counts[name] for name in ("nan", "weights", "sums", "ends")) < 1e-5
    said = any("transformers alone answers" in line for line in ctx.lines)
    assert said == (engine == TRANSFORMERS)


def test_an_embedded_engine_that_has_no_room_is_named_for_that(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = gate._engine

    def full(name: str, *args: Any) -> Any:
        if name == EMBEDDED:
            raise torch.OutOfMemoryError("NPU out of memory.\n Tried to allocate 2 GiB")
        return opened(name, *args)

    monkeypatch.setattr(gate, "_engine", full)
    inputs = {"reference": case.reference, "model": case.exported}
    ctx = LocalContext(folder=tmp_path, inputs=inputs, hardware=SERVING)
    answered = gate._answered(ctx, gate.AUTO, {})
    said = "OutOfMemoryError: NPU out of memory. Tried to allocate 2 GiB"
    assert (answered.engine, answered.refusal) == (TRANSFORMERS, said)


def test_a_model_whose_prompts_are_read_both_ways_is_refused_by_name(
    sums: Path, case: Case, tmp_path: Path
) -> None:
    model = model_of("hrm_text", case.trained, tmp_path / "model")
    asked = LocalContext(folder=tmp_path / "asked", inputs={"data": sums, "model": model})
    with pytest.raises(ValueError, match=r"^models of type 'hrm_text' are not served: "):
        reference.measure(asked, questions=4)
    inputs = {"reference": case.reference, "model": model}
    ctx = LocalContext(folder=tmp_path / "gate", inputs=inputs, hardware=SERVING)
    line = "the engine of pool 'ascend' refuses: models of type 'hrm_text' are not served: "
    with pytest.raises(ParityError) as caught:
        gate._answered(ctx, gate.AUTO, {})
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.chaos
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3600)
def test_as_many_types_are_judged_as_ever() -> None:
    counts = types_judged.judges_of(zoo.TYPES)
    assert counts[types_judged.EMBEDDED] >= 104
    assert counts[types_judged.EMBEDDED] + counts[types_judged.ALONE] >= 180
