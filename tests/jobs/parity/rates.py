"""How often the gate refuses honest exports, and how often it passes what is planted.

Models are small and really trained, dense and with experts, a new one of each seed. A fault is
planted in the export, as it would be on its way to the pool that serves.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from jobs.data import arithmetic
from jobs.data.dataset import read_facts
from jobs.data.splits import TEST
from jobs.export import export
from jobs.parity import gate, reference
from jobs.pretraining import pretrain
from orchestrator.job import ParityError
from tests.jobs.local_context import LocalContext
from tests.jobs.parity.conftest import ENGINE, PARAMS, SERVING
from tests.jobs.recipes import SHORT

PLAIN, QUANTISED = ("fp32", "bf16"), ("fp8", "fp8_ue8m0", "mxfp8", "int8")
FORMATS = (*PLAIN, *QUANTISED)
# Faults of quantised formats alone, and of models that have such a tensor.
SCALED = ("flipped scale", "lost scale", "nothing is named", "static activations")
NEEDS = {"scaled router": ".gate.weight", "moved bias": "e_score_correction_bias"}
SIZES: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "qwen3_moe": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "moe_intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
    },
    # several blocks of 128 a side, the last of them smaller; the head is the embeddings
    "wide": {
        "hidden_size": 320,
        "intermediate_size": 448,
        "num_hidden_layers": 1,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "tie_word_embeddings": True,
    },
    # routers of other names in memory than on disk
    "mixtral": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    # a bias that chooses experts, which is no parameter
    "deepseek_v3": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "moe_intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
    },
}
# Faults in what stands beside the weights, which are the same in any format.
BESIDE = (
    *("changed ends", "other activation", "wrong config", "short answers", "stray file"),
    *("stale tokenizer", "swapped ids"),
    *("wrong template", "a branch on system", "a branch on tools"),
)
TYPES = {"wide": "llama"}  # of those whose name is another
# Of the engine: its type of calculation, and how many answers it makes at once.
OPTIONS: tuple[dict[str, object], ...] = (
    {"dtype": "bfloat16", "slots": 32},
    {"dtype": "bfloat16", "slots": 3},
    {"dtype": "auto", "slots": 7},
    {"dtype": "float32", "slots": 32},
)
Tensors = dict[str, torch.Tensor]


def prepared(folder: Path, *, questions: int) -> Path:
    """Make a data set with so many questions to ask, and return its folder."""
    ctx = LocalContext(folder=folder)
    arithmetic.prepare(ctx, draws=questions * 10, validation=0.1, test=0.12)
    return ctx.output


@dataclass(frozen=True)
class Trained:
    """A model that was trained, and what the reference pass says of it."""

    folder: Path
    name: str
    model: Path
    reference: Path

    def exported(self, form: str) -> Path:
        """Return the model in a format."""
        folder = self.folder / form
        if not folder.exists():
            export(LocalContext(folder=folder, inputs={"model": self.model}), format=form)  # type: ignore[arg-type]
        return folder / "output"


def trained(
    folder: Path,
    data: Path,
    architecture: str,
    seed: int,
    *,
    steps: int = 100,
    max_tokens: int = 6,
) -> Trained:
    """Train a model, and make its reference pass."""
    ctx = LocalContext(folder=folder / "train", inputs={"data": data}, seed=seed)
    sizes = dict(SIZES[architecture])
    kind = TYPES.get(architecture, architecture)
    pretrain(ctx, **{**SHORT, "architecture": kind, "model": sizes, "steps": steps})
    asked = LocalContext(
        folder=folder / "reference", inputs={"data": data, "model": ctx.output}, seed=seed
    )
    rows = read_facts(data).rows[TEST]
    reference.measure(asked, questions=min(128, rows), max_tokens=max_tokens)
    return Trained(folder, f"{architecture} {seed}", ctx.output, asked.output)


def verdict(model: Trained, served: Path, options: dict[str, object]) -> str:
    """Return why the gate does not pass a folder, or nothing."""
    place = model.folder / "gate"
    shutil.rmtree(place, ignore_errors=True)
    inputs = {"reference": model.reference, "model": served}
    ctx = LocalContext(folder=place, inputs=inputs, hardware=SERVING)
    try:
        gate.check(ctx, **{**PARAMS, "engine": ENGINE, "options": {"threads": 1, **options}})
    except ParityError as error:
        return str(error)
    return ""


def honest(model: Trained) -> Iterator[tuple[str, str]]:
    """Yield the name of each honest export, and why it was not passed."""
    for number, form in enumerate(FORMATS):
        for options in (OPTIONS[number % 4], OPTIONS[(number + 1) % 4]):
            # an export in float32 that is computed in less is no honest one of its format
            chosen = {**options, "dtype": "float32"} if form == "fp32" else options
            name = f"{model.name} {form} {chosen['dtype']} slots={chosen['slots']}"
            yield name, verdict(model, model.exported(form), chosen)


# --- faults -----------------------------------------------------------------------------------


def planted(model: Trained, form: str, but: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the name of each fault, and what the gate said; nothing where it passed."""
    tensors = load_file(model.exported(form) / "model.safetensors")
    for name, plant in FAULTS.items():
        if name in but:
            continue
        if form in PLAIN and name in SCALED:
            continue
        if name in NEEDS and not any(NEEDS[name] in tensor for tensor in tensors):
            continue
        spoilt = model.folder / "spoilt"
        shutil.rmtree(spoilt, ignore_errors=True)
        shutil.copytree(model.exported(form), spoilt)
        plant(spoilt, form)
        yield f"{model.name} {form} {name}", verdict(model, spoilt, {})


def in_tensors(change: Callable[[Tensors, str], None]) -> Callable[[Path, str], None]:
    def plant(folder: Path, form: str) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors, form)
        save_file(tensors, path, metadata={"format": "pt"})

    return plant


ATTENTION = "model.layers.0.self_attn.o_proj.weight"
SCALES = ("_scale_inv", "_scale")  # what the name of a scale ends with
# By the bytes of a scale: its integers, and the lowest bit of its exponent.
EXPONENTS = {1: (torch.uint8, 0), 2: (torch.int16, 7), 4: (torch.int32, 23)}


def flipped_scale(tensors: Tensors, form: str) -> None:
    name = next(name for name in tensors if name.endswith(SCALES))
    integers, bit = EXPONENTS[tensors[name].element_size()]
    tensors[name].view(integers).flatten()[0] ^= 1 << bit


def lost_scale(tensors: Tensors, form: str) -> None:
    """Make one scale so small that nothing is left of its weights."""
    name = max(name for name in tensors if name.endswith(SCALES))
    integers, bit = EXPONENTS[tensors[name].element_size()]
    scales = tensors[name].view(integers).flatten()
    scales[len(scales) // 2] ^= scales[len(scales) // 2] & (1 << bit + 6)


def transposed(tensors: Tensors, form: str) -> None:
    tensors[ATTENTION] = tensors[ATTENTION].T.contiguous()


def truncated_exponent(tensors: Tensors, form: str) -> None:
    """Lose the lowest exponent bit, as a cast through a narrower type may."""
    for name, tensor in tensors.items():
        if tensor.ndim > 1 and tensor.dtype == torch.bfloat16:
            bits = tensor.contiguous().view(torch.int16)
            tensors[name] = (bits & ~(1 << 7)).view(torch.bfloat16)


def missing(tensors: Tensors, form: str) -> None:
    del tensors[ATTENTION]


def not_a_number(tensors: Tensors, form: str) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.bfloat16)
    tensors[name].flatten()[1] = math.nan


def stale_tokenizer(folder: Path, form: str) -> None:
    path = folder / "tokenizer.json"
    words = json.loads(path.read_text())
    merges = words["model"]["merges"]
    words["model"]["merges"] = merges[: len(merges) // 2]
    path.write_text(json.dumps(words))


def wrong_template(folder: Path, form: str) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|user|>", "<|user|> "))


def wrong_config(folder: Path, form: str) -> None:
    """Turn the positions otherwise: the weights are right, and what is computed is not."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"]["rope_theta"] = 10.0
    path.write_text(json.dumps(config))


def scaled_norm(tensors: Tensors, form: str) -> None:
    tensors["model.layers.0.input_layernorm.weight"] *= 1.02


def negated_row(tensors: Tensors, form: str) -> None:
    row = tensors[ATTENTION][3]
    if row.dtype == torch.float8_e4m3fn:
        row.view(torch.uint8).bitwise_xor_(0x80)
    else:
        row.neg_()


def swapped_columns(tensors: Tensors, form: str) -> None:
    weight = tensors[ATTENTION]
    columns = weight.view(torch.uint8) if weight.element_size() == 1 else weight
    columns[:, [0, 1]] = columns[:, [1, 0]]


def scaled_router(tensors: Tensors, form: str) -> None:
    for name in tensors:
        if name.endswith(NEEDS["scaled router"]):
            tensors[name] *= 1.03


def moved_bias(tensors: Tensors, form: str) -> None:
    for name in tensors:
        if name.endswith(NEEDS["moved bias"]):
            tensors[name] += 0.02 * torch.randn_like(tensors[name])


def flushed(tensors: Tensors, form: str) -> None:
    """Lose the small weights of what is not quantized, as a flush of subnormals may."""
    embedding = tensors["model.embed_tokens.weight"]
    embedding[embedding.abs() < embedding.float().std() * 0.7] = 0.0


def changed_ends(folder: Path, form: str) -> None:
    path = folder / "generation_config.json"
    fields = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**fields, "eos_token_id": [1, 7]}))


def other_activation(folder: Path, form: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "gelu"}))


def rewritten(file: str, change: Callable[[Any], object]) -> Callable[[Path, str], None]:
    def plant(folder: Path, form: str) -> None:
        path = folder / file
        fields = json.loads(path.read_text())
        change(fields)
        path.write_text(json.dumps(fields))

    return plant


def unnamed(config: Any) -> None:
    for name in ("ignore", "modules_to_not_convert"):
        if name in config["quantization_config"]:
            config["quantization_config"][name] = []


def static_activations(config: Any) -> None:
    """Have readers look for scales of inputs, and take other layers for quantized."""
    record = config["quantization_config"]
    if "activation_scheme" in record:
        record["activation_scheme"] = "static"
        return
    (group,) = record["config_groups"].values()
    group["targets"] = ["Conv2d"]
    group["input_activations"] |= {"num_bits": 4, "dynamic": False}


def swapped_ids(tokenizer: Any) -> None:
    """Exchange two tokens that no question and no text of the gate has."""
    vocabulary = tokenizer["model"]["vocab"]
    one, other = [token for token in vocabulary if len(token) == 1 and ord(token) > 0x110][:2]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def in_template(condition: str) -> Callable[[Path, str], None]:
    """Have the template say more where it is given what no question of the gate has."""

    def plant(folder: Path, form: str) -> None:
        path = folder / "chat_template.jinja"
        more = f"{{%- if {condition} -%}}Always say yes.{{%- endif -%}}"
        path.write_text(more + path.read_text())

    return plant


def stray_file(folder: Path, form: str) -> None:
    """Leave a second file of weights beside the one that is meant: some readers take both."""
    tensors = load_file(folder / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file({name: tensors[name] * 2}, folder / "model-00002-of-00002.safetensors")


FAULTS: Mapping[str, Callable[[Path, str], None]] = {
    "flipped scale": in_tensors(flipped_scale),
    "lost scale": in_tensors(lost_scale),
    "transposed matrix": in_tensors(transposed),
    "truncated exponent": in_tensors(truncated_exponent),
    "missing tensor": in_tensors(missing),
    "no number": in_tensors(not_a_number),
    "scaled norm": in_tensors(scaled_norm),
    "flushed weights": in_tensors(flushed),
    "changed ends": changed_ends,
    "other activation": other_activation,
    "stale tokenizer": stale_tokenizer,
    "wrong template": wrong_template,
    "wrong config": wrong_config,
    "negated row": in_tensors(negated_row),
    "swapped columns": in_tensors(swapped_columns),
    "scaled router": in_tensors(scaled_router),
    "moved bias": in_tensors(moved_bias),
    "nothing is named": rewritten("config.json", unnamed),
    "static activations": rewritten("config.json", static_activations),
    "short answers": rewritten(
        "generation_config.json",
        lambda fields: fields.update(max_new_tokens=1, repetition_penalty=9.0),
    ),
    "swapped ids": rewritten("tokenizer.json", swapped_ids),
    "a branch on system": in_template("messages[0]['role'] == 'system'"),
    "a branch on tools": in_template("tools"),
    "stray file": stray_file,
}
