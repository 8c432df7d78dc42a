"""An honest export passes the gate; each planted fault is caught, by the figure that shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from jobs.export import export
from orchestrator.job import ParityError
from tests.jobs.local_context import LocalContext
from tests.jobs.parity.conftest import LIMITS, PARAMS, Case, check

NAME = "model.safetensors"
ATTENTION = "model.layers.0.self_attn.o_proj.weight"
Tensors = dict[str, torch.Tensor]
Context = Callable[..., LocalContext]


def transposed(tensors: Tensors) -> None:
    tensors[ATTENTION] = tensors[ATTENTION].T.contiguous()


def flipped_bit(tensors: Tensors) -> None:
    """Flip the highest exponent bit of one weight that is below 2."""
    bits = tensors["model.layers.0.mlp.down_proj.weight"].view(torch.int16)
    bits[0, 0] ^= 1 << 14


def doubled(tensors: Tensors) -> None:
    """What one wrong bit in the scale of a block does: a power of two."""
    tensors["model.layers.0.mlp.down_proj.weight"] *= 2


def truncated_exponent(tensors: Tensors) -> None:
    """Lose the lowest exponent bit of all matrices, as a cast through a narrower type may."""
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            bits = tensor.contiguous().view(torch.int16)
            tensors[name] = (bits & ~(1 << 7)).view(torch.bfloat16)


def missing(tensors: Tensors) -> None:
    del tensors[ATTENTION]


def not_a_number(tensors: Tensors) -> None:
    tensors[ATTENTION][3, 4] = math.nan


def spoil(folder: Path, fault: Callable[[Tensors], None]) -> Path:
    tensors = load_file(folder / NAME)
    fault(tensors)
    save_file(tensors, folder / NAME, metadata={"format": "pt"})
    return folder


def why(ctx: LocalContext) -> str:
    """What the gate says of a model that it refuses."""
    with pytest.raises(ParityError) as caught:
        check(ctx)
    return str(caught.value)


def test_an_honest_export_passes_with_all_its_figures(context: Context) -> None:
    ctx = context()
    values = check(ctx)
    assert values["parity/passed"] == 1.0
    assert values["parity/kl_mean"] <= 2 * values["parity/floor_kl_mean"] + 1e-4
    assert values["parity/confidence"] >= 0.95
    assert values["parity/nan"] == values["parity/tokenizer"] == values["parity/template"] == 0
    assert values["parity/places"] > 24
    kept = json.loads((ctx.output / "parity.json").read_text())
    assert kept["why"] == ""
    assert kept["format"] == "bf16"
    assert kept["pools"] == ["nvidia", "ascend"]
    assert all(one["value"] <= one["limit"] for one in kept["thresholds"] if not one["least"])
    assert "Passed." in ctx.reports["parity.md"]
    assert "on ascend (emulated)" in ctx.reports["parity.md"]


def test_what_the_gate_records_of_a_few_texts_is_what_transformers_computes(
    case: Case, context: Context
) -> None:
    ctx = context()
    values = check(ctx)
    recorded = json.loads((ctx.output / "proof.json").read_text())
    texts = recorded["texts"]
    assert 1 <= len(texts) <= 8
    model = AutoModelForCausalLM.from_pretrained(case.exported, dtype=torch.float32)
    apart = 0.0
    for text in texts:
        tokens = torch.tensor([text["tokens"]])
        with torch.inference_mode():
            logs = model(tokens).logits.log_softmax(-1)[0, :-1]
        told = logs.gather(1, tokens[0, 1:, None])[text["begin"] - 1 :, 0]
        assert len(told) == len(text["logprobs"])
        apart = max(apart, float((told - torch.tensor(text["logprobs"])).abs().mean()))
    assert apart <= math.sqrt(2 * recorded["kl_mean"]) / 2
    floor, allowance = values["parity/floor_kl_mean"], PARAMS["allowances"]["bf16"]["kl_mean"]
    assert recorded["kl_mean"] == pytest.approx(PARAMS["factor"] * floor + allowance)
    assert recorded["kl_mean"] == values["parity/limit_kl_mean"] < LIMITS["bf16"]["kl_mean"]


def test_an_export_in_full_precision_is_all_but_the_same(
    case: Case, context: Context, tmp_path: Path
) -> None:
    made = LocalContext(folder=tmp_path / "fp32", inputs={"model": case.trained})
    export(made, format="fp32")
    values = check(context(made.output))
    assert values["parity/kl_max"] < 1e-5
    assert values["parity/greedy"] == 1.0


@pytest.mark.parametrize("fault", [transposed, flipped_bit, doubled, truncated_exponent])
def test_wrong_weights_are_caught(
    copy: Path, context: Context, fault: Callable[[Tensors], None]
) -> None:
    ctx = context(spoil(copy, fault))
    said = why(ctx)
    assert "the model on pool 'ascend' is not the one that was trained" in said
    assert "is allowed for bf16" in said
    assert ctx.points[-1][1]["parity/passed"] == 0.0
    assert "Not passed: " in ctx.reports["parity.md"]


def test_a_weight_that_is_no_number_is_caught_before_it_serves(
    copy: Path, context: Context
) -> None:
    said = why(context(spoil(copy, not_a_number)))
    assert said.startswith("the engine of pool 'ascend' refuses: tensor ")
    assert "not finite" in said


def test_a_tensor_that_is_missing_is_caught(copy: Path, context: Context) -> None:
    spoil(copy, missing)
    assert "has missing tensors" in why(context(copy))


def test_a_stale_tokenizer_is_caught(case: Case, copy: Path, context: Context) -> None:
    path = copy / "tokenizer.json"
    words = json.loads(path.read_text())
    merges = words["model"]["merges"]
    words["model"]["merges"] = merges[: len(merges) // 2]
    path.write_text(json.dumps(words))
    Tokenizer.from_file(str(path))
    ctx = context(copy)
    assert "texts that the tokenizer encodes otherwise" in why(ctx)
    assert ctx.points[-1][1]["parity/kl_mean"] <= LIMITS["bf16"]["kl_mean"]


def test_a_wrong_chat_template_is_caught(copy: Path, context: Context) -> None:
    path = copy / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|user|>", "<|user|> "))
    ctx = context(copy)
    assert why(ctx).startswith("template is ")
    assert ctx.points[-1][1]["parity/tokenizer"] == 0.0


def test_a_template_that_is_gone_is_caught(copy: Path, context: Context) -> None:
    (copy / "chat_template.jinja").unlink()
    assert why(context(copy)).startswith("template is ")


@pytest.mark.parametrize(
    ("params", "kind", "line"),
    [
        ({"limits": {}}, ValueError, "limits has none for format 'bf16'; it has none"),
        (
            {"limits": {"bf16": {**LIMITS["bf16"], "klmean": 1.0}}},
            ValueError,
            "limits.bf16 has no use for 'klmean'",
        ),
        ({"allowances": {}}, ValueError, "allowances has none for format 'bf16'; it has none"),
        ({"factor": 0.5}, ValueError, "factor=0.5 asks for less than the noise itself"),
        ({"confidence": 1.0}, ValueError, "confidence=1.0 is not between 0.5 and 1"),
        ({"engine": "fast"}, TypeError, "engine='fast' is no dotted name of an engine class"),
        ({"engine": "jobs.engines.echo.EchoEngine"}, TypeError, "it has no `score`"),
    ],
)
def test_a_wrong_config_is_no_verdict(
    context: Context, params: dict[str, object], kind: type[Exception], line: str
) -> None:
    with pytest.raises(kind, match=line):
        check(context(), **params)


def test_one_wrong_scale_shows_in_the_weights_whatever_the_answers(
    copy: Path, context: Context
) -> None:
    """As in a large model, where one block of thousands hardly counts."""
    ctx = context(spoil(copy, doubled))
    loose = dict.fromkeys(LIMITS["bf16"], 1e9) | {"top1": 0.0, "greedy": 0.0}
    loose_too = dict.fromkeys(PARAMS["allowances"]["bf16"], 1e9)
    with pytest.raises(
        ParityError, match=r"^weights is 1[.\d]*, at most 0\.01 is allowed for bf16"
    ):
        check(
            ctx,
            limits={"bf16": loose | {"weights": LIMITS["bf16"]["weights"]}},
            allowances={"bf16": loose_too},
        )
    line = "weights of the engine, as it has loaded them: 1, most in model.layers.0.mlp.down_proj"
    assert any(one.startswith(line) for one in ctx.lines)


def test_of_an_engine_that_tells_nothing_the_folder_is_read_and_the_verdict_says_so(
    context: Context,
) -> None:
    ctx = context()
    assert check(ctx, engine="tests.jobs.parity.engines.MuteEngine")["parity/passed"] == 1.0
    kept = json.loads(ctx.reports["parity.json"])
    assert kept["weights"] == "the folder, as this product reads it"
    assert kept["computed"] == "bfloat16"
    assert "the weights as the engine holds them: it tells nothing of them" in kept["unseen"]
    assert "- in which type the engine computes" in ctx.reports["parity.md"]


def test_what_the_engine_has_loaded_wrongly_is_caught_though_the_folder_is_right(
    context: Context,
) -> None:
    with pytest.raises(ParityError, match=r"^weights is 1[.\d]*, at most 0\.01"):
        check(context(), engine="tests.jobs.parity.engines.WrongEngine")


@pytest.mark.parametrize("form", ["fp8", "fp8_ue8m0", "mxfp8", "int8"])
def test_an_honest_export_passes_in_every_format(
    case: Case, context: Context, tmp_path: Path, form: str
) -> None:
    ctx = context(quantised(case, tmp_path, form))
    assert check(ctx)["parity/weights"] <= LIMITS[form]["weights"] / 2
    assert json.loads(ctx.reports["parity.json"])["format"] == form


@pytest.mark.parametrize("form", ["fp8", "fp8_ue8m0"])
def test_one_flipped_bit_of_one_scale_is_caught(
    case: Case, context: Context, tmp_path: Path, form: str
) -> None:
    folder = quantised(case, tmp_path, form)
    ctx = context(spoil(folder, flipped_scale))
    with pytest.raises(
        ParityError, match=rf"^weights is (1|0\.[2-9])[\d.]*, .* allowed for {form}"
    ):
        check(ctx)


def test_other_limits_of_answers_are_caught(copy: Path, context: Context) -> None:
    path = copy / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_new_tokens": 1}))
    ctx = context(copy)
    assert why(ctx).startswith("generation is 1, at most 0 is allowed for bf16")
    assert "fields of the generation config that differ: max_new_tokens" in ctx.lines


def test_a_folder_in_float16_is_judged_and_one_in_float64_refused_in_a_line(
    copy: Path, context: Context
) -> None:
    stored_as(copy, torch.float16)
    ctx = context(copy)
    assert check(ctx)["parity/passed"] == 1.0
    assert json.loads(ctx.reports["parity.json"])["format"] == "fp16"
    stored_as(copy, torch.float64)
    assert "are stored as 'float64', in which nothing is judged; export them in" in why(ctx)


def stored_as(folder: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / NAME).items()}
    save_file(tensors, folder / NAME, metadata={"format": "pt"})
    path = folder / "config.json"
    name = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": name}))


def quantised(case: Case, folder: Path, form: str) -> Path:
    made = LocalContext(folder=folder / form, inputs={"model": case.trained})
    export(made, format=form)
    return made.output


def flipped_scale(tensors: Tensors) -> None:
    """Flip the lowest exponent bit of one scale: it stays a power of two where it was one."""
    name = next(name for name in tensors if name.endswith("_scale_inv"))
    tensors[name].view(torch.int32).flatten()[0] ^= 1 << 23
