"""What the model does on the host: a stage of its own, which the chips are compared with.

It is done in float32, and again as sound accelerators may do it (TF32, BF16): how far those stray
is the noise that a chip is allowed, with a factor. A host may be slow: no chip waits meanwhile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jobs.qualification import report
from jobs.qualification.absolute_error import absolute_error, magnitude
from jobs.qualification.bench import BOTH, SERVE, TRAIN, Bench
from jobs.qualification.curve import BATCH, ShortTraining, rows_of, train
from jobs.qualification.reduced import fresh, spread
from jobs.qualification.rounded import tf32
from jobs.training.loss import forward
from orchestrator.job import JobContext, Metrics

NAME, LOGITS = "reference.json", "logits.safetensors"
FLOAT32, TF32, BF16 = "float32", "tf32", "bf16"
_MOST = 4096  # tokens whose logits are kept
_FACTOR = 3.0
_LEAST, _MOST_OF_A_LOSS = 1e-3, 0.1
_TINY = 1e-12  # what errors are measured by where all is zero


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReference:
    """What the host got.

    Attributes:
        losses: The loss of each step, by arithmetic; none where nobody asked for training.
        strays: How far logits stray from those of float32, by arithmetic.
        logits: Those of float32, [rows, width, tokens]; empty where nobody asked for serving.
    """

    losses: Mapping[str, Sequence[float]]
    strays: Mapping[str, float]
    logits: Tensor

    def allowed_losses(self, arithmetic: str) -> list[float]:
        """Return how far the loss of each step may be off, as a share of it.

        What strays once may stray on: the noise of a step is the largest up to there.
        """
        allowed, largest = [], 0.0
        pairs = zip(self.losses[FLOAT32], self.losses[arithmetic], strict=True)
        for exact, noisy in pairs:
            largest = max(largest, abs(noisy - exact) / abs(exact))
            allowed.append(min(max(_FACTOR * largest, _LEAST), _MOST_OF_A_LOSS))
        return allowed

    def allowed_logits(self, arithmetic: str) -> float:
        """Return how far logits may stray; what is no number on the host excuses nothing."""
        noise = self.strays[arithmetic]
        return max(_FACTOR * noise, _LEAST) if math.isfinite(noise) else _LEAST


def qualify_reference(
    ctx: JobContext,
    *,
    architecture: str = "llama",
    model: dict[str, object] | None = None,
    roles: list[str] | None = None,
    steps: int = 20,
    quick: bool = False,
) -> Metrics:
    """Train the model on the host, and ask it.

    Args:
        ctx: The context.
        architecture: Model type of transformers, as the pipeline trains it.
        model: Fields of its config.
        roles: What the pool is wanted for; both where none is given.
        steps: Training steps.
        quick: Is of no matter here.
    """
    bench, wanted = Bench(ctx, quick), roles or BOTH
    losses: dict[str, list[float]] = {}
    strays: dict[str, float] = {}
    logits = torch.empty(0)
    with ctx.busy("computing on the host"):  # a wide model may take minutes a step
        if TRAIN in wanted:
            losses = _curves(bench, ShortTraining(architecture, model or {}, steps, ctx.seed))
        if SERVE in wanted:
            logits, strays = _answers(asked_model(architecture, model or {}, ctx.seed), bench)
    save_file({"logits": logits}, ctx.output / LOGITS)
    text = json.dumps({"losses": losses, "strays": strays}, indent=2)
    (ctx.output / NAME).write_text(f"{text}\n", "utf-8")
    return report.finish(bench)


def _curves(bench: Bench, recipe: ShortTraining) -> dict[str, list[float]]:
    """Return the losses of a training in each arithmetic."""
    curves = {}
    for name in (FLOAT32, TF32, BF16):
        with arithmetic(name):
            curves[name] = train(recipe, bench.group, bf16=name == BF16, sign=bench.step).losses
    return curves


def read(folder: Path) -> HostReference:
    """Return what the stage has written to a folder."""
    stored = json.loads((folder / NAME).read_text("utf-8"))
    return HostReference(**stored, logits=load_file(folder / LOGITS)["logits"])


def reference_of(ctx: JobContext) -> HostReference | None:
    """Return what the stage before has found; `None` where there was none."""
    folder = ctx.inputs.get("reference")
    return None if folder is None else read(folder)


def arithmetic(name: str) -> AbstractContextManager[None]:
    """Return a context in which the host's products are those of `name`."""
    return tf32() if name == TF32 else nullcontext()


def asked_model(architecture: str, fields: Mapping[str, object], seed: int) -> nn.Module:
    """Return the model that is asked, on the host."""
    return spread(fresh(architecture, fields, seed), seed).eval()


def _answers(model: nn.Module, bench: Bench) -> tuple[Tensor, dict[str, float]]:
    """Return the logits of float32, and how far those of the others stray from them."""
    bench.step()
    exact = logits_of(model, bench.ctx.seed)
    with arithmetic(TF32):
        strays = {TF32: stray(logits_of(model, bench.ctx.seed), exact)}
    strays[BF16] = stray(logits_of(model.bfloat16(), bench.ctx.seed), exact)
    return exact, strays


@torch.no_grad()
def logits_of(model: Any, seed: int) -> Tensor:  # noqa: ANN401 - a transformers model
    """Return the logits of a few rows, float32 on the host: [rows, width, some tokens]."""
    device = next(model.parameters()).device
    tokens = rows_of(seed).tokens[:BATCH].to(device, torch.int64)
    return forward(model, tokens)[..., :_MOST].float().cpu().contiguous()


def stray(logits: Tensor, expected: Tensor) -> float:
    """Return how far logits [..., tokens] are off, as a share of the largest.

    It is that of all places but the tenth that is farthest: where a token goes to other experts,
    which rounding may do, its logits are others. It is infinite where any is no number.
    """
    off = absolute_error(logits, expected).amax(-1).flatten()
    if off.isinf().any():
        return math.inf
    return float(off.quantile(0.9) / magnitude(expected).max().clamp(min=_TINY))
