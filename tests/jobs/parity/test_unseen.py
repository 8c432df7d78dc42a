"""The verdict says what it could not see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.parity.reading import Reference
from jobs.parity.served_engine import ENGINE, ServedNorms
from jobs.parity.unseen import AskedEngine, has_experts, unseen
from tests.jobs.formats import zoo
from tests.jobs.parity.conftest import Case

MUTE = "which experts are chosen: the code of this type tells nothing of them"
ACTIVATIONS = "the noise of activations in 8 bits"


def sentences(reference: Reference, form: str = "bf16", *, stands_in: bool = False) -> str:
    engine = AskedEngine(form=form, computed="bfloat16", stands_in=stands_in)
    weights = ServedNorms(norms={}, source=ENGINE)
    return "\n".join(unseen(reference, reference.responses, weights, engine))


def test_of_a_type_that_tells_nothing_of_its_experts_the_verdict_says_so(case: Case) -> None:
    reference = case.read
    assert MUTE not in sentences(reference)
    mute = replace(reference, config=zoo.small("llama4_text").to_dict())
    assert MUTE in sentences(mute)


@pytest.mark.parametrize("kind", ["llama4_text", "jetmoe", "lfm2_moe", "deepseek_v3"])
def test_experts_are_known_by_the_config(kind: str) -> None:
    assert has_experts(zoo.small(kind).to_dict())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_a_dense_model_has_none(kind: str) -> None:
    assert not has_experts(zoo.small(kind).to_dict())


def test_activations_are_not_measured_where_the_embedded_engine_stands_in(case: Case) -> None:
    assert ACTIVATIONS in sentences(case.read, "int8", stands_in=True)
    assert ACTIVATIONS not in sentences(case.read, "bf16", stands_in=True)
    assert ACTIVATIONS not in sentences(case.read, "int8")


def test_what_is_left_out_and_why_the_embedded_engine_does_not_answer_is_said(case: Case) -> None:
    reference, weights = case.read, ServedNorms(norms={}, source=ENGINE)
    alone = AskedEngine(
        form="bf16",
        computed="bfloat16",
        stands_in=True,
        cached=False,
        refusal="OutOfMemoryError: NPU out of memory",
        further=("model.layers.61",),
    )
    said = "\n".join(unseen(reference, reference.responses, weights, alone))
    assert "(the embedded engine refuses: OutOfMemoryError: NPU out of memory)" in said
    assert "layers that predict further tokens: model.layers.61" in said
    assert "further tokens" not in sentences(reference)
