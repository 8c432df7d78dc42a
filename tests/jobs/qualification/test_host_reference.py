"""What the host says, and how far from it sound arithmetic strays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.qualification.bench import FAILED, LIMITED, PASSED, Bench
from jobs.qualification.host_reference import (
    BF16,
    FLOAT32,
    TF32,
    HostReference,
    arithmetic,
    asked_model,
    logits_of,
    qualify_reference,
    read,
    reference_of,
    stray,
)
from jobs.qualification.logits import check_logits
from jobs.qualification.rounded import rounded
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SMALL


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ctx = LocalContext(folder=tmp_path_factory.mktemp("host"))
    qualify_reference(ctx, model=SMALL, steps=4)
    return ctx.output


@pytest.fixture
def bench(tmp_path: Path, host: Path) -> Bench:
    return Bench(LocalContext(folder=tmp_path, inputs={"reference": host}))


def test_tf32_keeps_ten_bits_and_rounds_to_even() -> None:
    unit = 2.0**-10
    given = torch.tensor([1 + unit / 2, 1 + 3 * unit / 2, 1 + 0.6 * unit, 8.0, -1 - 0.6 * unit])
    assert rounded(given).tolist() == [1.0, 1 + 2 * unit, 1 + unit, 8.0, -1 - unit]


def test_the_noise_of_each_arithmetic_is_measured(host: Path) -> None:
    known = read(host)
    assert set(known.losses) == {FLOAT32, TF32, BF16}
    assert all(len(losses) == 4 for losses in known.losses.values())
    assert len({tuple(losses) for losses in known.losses.values()}) == 3
    assert 0 < known.strays[TF32] < known.strays[BF16] < 0.1
    assert known.logits.shape == (8, 24, 256)


def test_a_chip_as_inexact_as_others_is_sound(bench: Bench) -> None:
    known, model = reference_of(bench.ctx), asked_model("llama", SMALL, bench.ctx.seed)
    with arithmetic(TF32):
        check_logits(bench, model, known, ["bf16"])
    assert [(one.subject, one.status) for one in bench.findings] == [
        ("logits float32", PASSED),
        ("logits bfloat16", PASSED),
    ]


@pytest.mark.parametrize("kind", [torch.nn.Linear, torch.nn.Embedding])
def test_a_model_that_is_a_little_off_is_found(bench: Bench, kind: type[torch.nn.Module]) -> None:
    model = asked_model("llama", SMALL, bench.ctx.seed)
    module = next(one for one in model.modules() if isinstance(one, kind))
    with torch.no_grad():
        module.weight[::3] *= 1.1  # type: ignore[index,operator]
    check_logits(bench, model, reference_of(bench.ctx), [])
    assert [one.status for one in bench.findings] == [FAILED]


def test_logits_that_are_no_numbers_need_no_host_to_be_wrong(bench: Bench) -> None:
    model = asked_model("llama", SMALL, bench.ctx.seed)
    next(model.parameters()).data.fill_(float("nan"))
    check_logits(bench, model, None, [])
    assert [(one.status, one.note) for one in bench.findings] == [(FAILED, "some are no numbers")]


def test_without_a_host_nothing_is_compared_which_is_a_limit(bench: Bench) -> None:
    check_logits(bench, asked_model("llama", SMALL, 0), None, [])
    assert [one.status for one in bench.findings] == [LIMITED]


def test_a_token_that_goes_to_other_experts_excuses_one_place_in_ten(host: Path) -> None:
    known = read(host)
    other = known.logits.clone()
    other[0, :19] += 1  # of 192 places
    assert HostReference.allowed_logits(known, TF32) >= 1e-3
    assert stray(other, known.logits) == 0.0
    other[0] += 1
    assert stray(other, known.logits) > 0.1
    for strange in (float("nan"), float("inf")):
        other[0, 0, 0] = strange
        assert stray(other, known.logits) == float("inf")
        assert stray(known.logits, other) == float("inf")
    other[0] = known.logits[0]
    other[0, 0, 0] = float("-inf")
    assert stray(other, other) == 0.0


@pytest.mark.parametrize("noise", [float("nan"), float("inf")])
def test_noise_of_the_host_that_is_no_number_excuses_nothing(noise: float) -> None:
    reference = HostReference(losses={}, strays={BF16: noise}, logits=torch.empty(0))
    assert reference.allowed_logits(BF16) == 1e-3


def test_logits_are_the_model_s_own() -> None:
    model = asked_model("llama", SMALL, 3).eval()
    assert torch.equal(logits_of(model, 3), logits_of(model, 3))
