"""What a rank of a training will hold, computed from the shapes of the model alone.

Weights, gradients and both moments of AdamW are in float32 and dealt out: exact. A layer is
gathered while it is computed, the next one beside it: as `fully_shard` does it. What is kept for
the backward pass is an estimate by the widths of a layer, with attention that keeps no scores.
Without `parallel` each rank holds all: what state alone outgrows a chip is refused, for no smaller
micro-batch helps; the rest is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from jobs.data.tokens.training_data import rows_config
from jobs.training import model as models
from jobs.training.optimizers import DEALT_OUT, muon_matrices
from jobs.training.parallel.degrees import MeshDegrees, parallel_of
from jobs.training.parallel.experts import check_passes, is_stacked
from jobs.training.parallel.experts import plan_of as plan_of_experts
from jobs.training.parallel.sharding import dealt_along, experts_apart, layers
from jobs.training.parallel.tensor import plan_of, split_along, style_of

FLOAT32, BFLOAT16 = 4, 2  # bytes
_MOMENTS = 2
_GB = 1e9
_WIDTHS, _INNER_WIDTHS = 10, 4  # values that a layer keeps of a token: of hidden and inner size
_EXCHANGED = 3  # values of each token that goes to an expert: as it comes, sorted, and come back


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of a rank, and of a checkpoint.

    Attributes:
        state: Weights, gradients and optimizer state that the rank holds.
        gathered: Of layers while they are computed, with their gradients.
        activations: What is kept for the backward pass, about.
        checkpoint: Of all ranks together.
    """

    state: int
    gathered: int
    activations: int
    checkpoint: int

    @property
    def rank(self) -> int:
        """All that a rank holds at the most."""
        return self.state + self.gathered + self.activations


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFactors:
    """What of a recipe decides how much memory it takes; `tokens` are those of a micro-batch.

    `muon` is whether that moves the matrices of layers, of which it keeps one moment.
    """

    tokens: int
    bf16: bool
    master_weights: bool
    activation_checkpointing: bool
    muon: bool = False


def memory_of(model: nn.Module, parallel: MeshDegrees, recipe: MemoryFactors) -> Memory:
    """Return what a rank holds of `model`, which needs no weights."""
    kept = 1 + _MOMENTS + recipe.master_weights  # of each weight in a checkpoint, in float32
    split = _split(model, parallel.tensor)  # the shape that a worker computes with
    plan = plan_of_experts(model, parallel.expert) if parallel.expert > 1 else {}
    over = {name: parallel.shard if is_stacked(plan, name) else parallel.dealt for name in split}
    for name in (name for name in split if is_stacked(plan, name)):
        split[name] = (split[name][0] // parallel.expert, *split[name][1:])
    held = sum(_dealt(shape, over[name]) for name, shape in split.items())
    sizes = {name: prod(shape) for name, shape in split.items()}
    of_layers = [f"{name}." for name, _ in layers(model)]
    inside = [
        sum(size for name, size in sizes.items() if name.startswith(prefix))
        for prefix in of_layers
    ]
    outside = sum(sizes.values()) - sum(inside)
    matrices = {*muon_matrices(model)} if recipe.muon else set()
    lighter = [name for name, weight in model.named_parameters() if weight in matrices]
    held_lighter = sum(_dealt(split[name], over[name]) for name in lighter)
    whole = models.parameters(model)
    width = BFLOAT16 if recipe.bf16 else FLOAT32
    # this layer and the next, the gradient as it is computed, and as it is reduced
    layer = max(inside, default=0) * (3 * width + FLOAT32)
    return Memory(
        state=(held * (kept + 1) - held_lighter) * FLOAT32,
        gathered=layer + outside * 2 * FLOAT32 if parallel.dealt > 1 else 0,
        activations=_activations(model, recipe, width, parallel),
        checkpoint=(whole * kept - sum(weight.numel() for weight in matrices)) * FLOAT32,
    )


def _split(model: nn.Module, size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of what a worker computes with of each weight, split over `size`."""
    plan = plan_of(model, size) if size > 1 else {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in model.named_parameters():
        along = split_along(style_of(plan, name), weight.ndim)
        shapes[name] = tuple(
            length // size if at == along else length for at, length in enumerate(weight.shape)
        )
    return shapes


def _dealt(shape: Sequence[int], size: int) -> int:
    """Return how many values of a weight the worker holds that has most."""
    dim = dealt_along(shape, size)
    return prod(-(-length // size) if at == dim else length for at, length in enumerate(shape))


def _activations(
    model: Any,  # noqa: ANN401 - a transformers model
    recipe: MemoryFactors,
    width: int,
    parallel: MeshDegrees,
) -> int:
    config = model.config.get_text_config()
    hidden: int = config.hidden_size
    inner: int = getattr(config, "intermediate_size", None) or 4 * hidden
    routed = getattr(config, "moe_intermediate_size", None)
    chosen: int = getattr(config, "num_experts_per_tok", None) or 1
    if routed:
        inner = max(inner, routed * chosen)
    kept = _WIDTHS * hidden + _INNER_WIDTHS * inner // parallel.tensor
    if parallel.expert > 1:
        kept += _EXCHANGED * chosen * hidden
    layer = recipe.tokens * kept * width
    count = len(list(layers(model)))
    if recipe.activation_checkpointing:
        return layer + count * recipe.tokens * hidden * width
    return layer * count


def forecast(
    params: Mapping[str, Any],
    *,
    inputs: Sequence[str],
    workers: int,
    memory_gb: float | None,
    bf16: bool,
) -> Iterator[str]:
    """Yield what is to be known of a training on `workers` chips of so much memory.

    Raises:
        ValueError: It can't be done as `params` say, or does not fit.
    """
    dealt_out, parallel = bool(params.get("parallel")), _degrees(params, workers)
    if "model" in inputs:
        yield "its model comes from a stage before it: memory is not forecast"
        return
    model = models.outline(params.get("architecture", "llama"), params.get("model") or {})
    if parallel.dealt > 1 and (apart := next(experts_apart(model), None)):
        raise ValueError(
            f"parallel.shard: the experts of {apart!r} are modules of their own, of which some "
            f"get no token in a step; such a model trains unsharded alone"
        )
    memory = memory_of(model, parallel, _recipe(params, parallel, bf16=bf16))
    parts = (
        f"{_gb(memory.state)} of weights, gradients and optimizer state, {_gb(memory.gathered)} "
        f"of gathered layers, about {_gb(memory.activations)} of activations"
    )
    size = f"{models.parameters(model) / _GB:,.2f}B parameters, {workers:,} workers"
    assumed = _assumed(params, model)
    way_out = _way_out(memory, memory_gb, dealt_out=dealt_out) if memory_gb is not None else ""
    needed = memory.rank if dealt_out else memory.state
    if memory_gb is not None and needed > memory_gb * _GB:
        raise ValueError(
            f"{size}: a rank needs {_gb(memory.rank)}, a chip has {memory_gb:,.0f} GB; "
            f"{way_out} ({parts}){assumed}"
        )
    have = f" of {memory_gb:,.0f} GB" if memory_gb is not None else ""
    short = memory_gb is not None and memory.rank > memory_gb * _GB
    yield (
        f"{size}: {_gb(memory.rank)}{have} a rank ({parts}), {_gb(memory.checkpoint)} a save; "
        f"to begin, {_to_begin(model, in_parts=dealt_out and workers > 1)}"
        f"{f'; that may run out: {way_out}' if short else ''}{assumed}"
    )


def _to_begin(model: nn.Module, *, in_parts: bool) -> str:
    """Say what a fresh model takes on a host as it is made: weight by weight where in parts."""
    if not in_parts:
        return f"{_gb(models.parameters(model) * FLOAT32)} on the host of each worker"
    largest = max(weight.numel() for weight in model.parameters())
    return f"{_gb(largest * FLOAT32)} on the host of the first worker"


def _degrees(params: Mapping[str, Any], workers: int) -> MeshDegrees:
    """Return how a recipe deals its model out; each worker holds all of it where it does not.

    Raises:
        ValueError: That can't be done.
    """
    if not params.get("parallel"):
        return MeshDegrees(replicate=workers)
    parallel = parallel_of(params["parallel"], workers)
    check_passes(parallel, params.get("compile"))
    if workers > 1 and _is_muon(params):
        raise ValueError(DEALT_OUT)
    return parallel


def _is_muon(params: Mapping[str, Any]) -> bool:
    return (params.get("optimizer") or {}).get("kind") == "muon"


def _recipe(params: Mapping[str, Any], parallel: MeshDegrees, *, bf16: bool) -> MemoryFactors:
    rows = -(-params.get("batch_size", 64) // parallel.data)
    rows = -(-rows // params.get("accumulate", 1))
    width = rows_config(params.get("rows") or {}).sequence
    if (most := params.get("micro_batch_tokens")) is not None:
        rows = min(rows, max(1, most // width))
    precision = params.get("precision", "auto")
    return MemoryFactors(
        tokens=rows * width,
        bf16=precision == "bf16" or (precision == "auto" and bf16),
        master_weights=params.get("weights") == "bf16",
        activation_checkpointing=bool(params.get("activation_checkpointing")),
        muon=_is_muon(params),
    )


def _assumed(params: Mapping[str, Any], model: Any) -> str:  # noqa: ANN401 - a transformers model
    """Say what the recipe leaves to the data, and is taken to be as usual here."""
    rows = params.get("rows") or {}
    assumed: list[str] = []
    if "vocab_size" not in (params.get("model") or {}):
        assumed.append(f"a vocabulary of {model.config.get_text_config().vocab_size:,}")
    if "sequence" not in rows:
        assumed.append(f"rows of {rows_config(rows).sequence:,} tokens")
    return f"; assumed: {' and '.join(assumed)}" if assumed else ""


def _way_out(memory: Memory, memory_gb: float, *, dealt_out: bool) -> str:
    """Say what would lessen the largest part."""
    if memory.state > memory_gb * _GB:
        whole = "each worker holds all of the model: set parallel.shard"
        return "shard over more workers" if dealt_out else whole
    if memory.activations >= memory.gathered:
        return "raise accumulate, or lower micro_batch_tokens, or set activation_checkpointing"
    return (
        "split its layers by parallel.tensor, its experts by parallel.expert, or take chips with "
        "more memory"
    )


def _gb(size: float) -> str:
    return f"{size / _GB:,.1f} GB"
