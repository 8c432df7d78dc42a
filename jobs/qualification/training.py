"""A short training on the chips: twice alike, as on the host, the same in all, and saved."""

from __future__ import annotations

import hashlib
import math
from time import perf_counter

import torch
from torch import nn

from jobs.qualification.bench import FAILED, LIMITED, PASSED, TRAIN, Bench
from jobs.qualification.curve import BATCH, RATE, ShortTraining, Trained, rows_of, train
from jobs.qualification.host_reference import BF16, FLOAT32, TF32, HostReference
from jobs.qualification.reduced import fresh
from jobs.training import checkpoint
from jobs.training.loss import TokenLoss, nll
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.parallel.restoring import restore
from jobs.training.step import wants_bf16

_ONLY = (TRAIN,)


def check_training(bench: Bench, recipe: ShortTraining, reference: HostReference | None) -> None:
    """Train twice with one seed, compare with the host, and save what came of it."""
    bf16 = wants_bf16("auto", bench.ctx.hardware)
    first, second = (train(recipe, bench.group, bf16=bf16, sign=bench.step) for _ in range(2))
    _check_finite(bench, first.losses + second.losses)
    _check_same(bench, first, second)
    _check_curve(bench, first.losses, reference, BF16 if bf16 else TF32)
    _check_gang(bench, first)
    _check_checkpoint(bench, second, recipe)


def _check_finite(bench: Bench, losses: list[float]) -> None:
    bad = [step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)]
    if bad:
        note = f"the loss of step {bad[0]} is {losses[bad[0] - 1]!r}"
        bench.say("training", "loss", FAILED, note=note, roles=_ONLY)


def _check_same(bench: Bench, first: Trained, second: Trained) -> None:
    pairs = zip(first.losses, second.losses, strict=True)
    other = [step for step, (loss, repeated) in enumerate(pairs, 1) if loss != repeated]
    if other:
        note = f"with one seed, the losses part at step {other[0]}"
    elif _digest(first.model) != _digest(second.model):
        note = "with one seed, the losses are the same, the weights are not"
    else:
        note = ""
    bench.say("determinism", "training", LIMITED if note else PASSED, note=note, roles=_ONLY)


def _check_curve(
    bench: Bench, losses: list[float], reference: HostReference | None, arithmetic: str
) -> None:
    """Compare with the host's losses, each within the noise of the arithmetic up to there."""
    if reference is None or len(reference.losses.get(FLOAT32, ())) != len(losses):
        note = "there is nothing of the host's to compare with"
        bench.say("reference", "loss", LIMITED, note=note, roles=_ONLY)
        return
    wanted, allowed = reference.losses[FLOAT32], reference.allowed_losses(arithmetic)
    errors = [
        abs(loss - expected) / abs(expected) for loss, expected in zip(losses, wanted, strict=True)
    ]
    beyond = [error / most for error, most in zip(errors, allowed, strict=True)]
    worst = max(range(len(errors)), key=lambda step: (math.isnan(beyond[step]), beyond[step]))
    note = (
        f"loss {losses[worst]:.4f} at step {worst + 1}, {wanted[worst]:.4f} on the host, "
        f"{allowed[worst]:.1%} is allowed; ends at {losses[-1]:.4f}"
    )
    status = PASSED if beyond[worst] <= 1 else FAILED
    bench.say("reference", "loss", status, figure=errors[worst], note=note, roles=_ONLY)


def _check_gang(bench: Bench, trained: Trained) -> None:
    """Look whether all workers hold the same weights."""
    digests = set(bench.group.gather(_digest(trained.model)))
    if len(digests) > 1:
        note = f"{len(digests)} different models in one gang"
        bench.say("training", "weights", FAILED, note=note, roles=_ONLY)


def _check_checkpoint(bench: Bench, trained: Trained, recipe: ShortTraining) -> None:
    """Save the state by way of the context, read it back, and go on from it."""
    ctx, began = bench.ctx, perf_counter()
    snapshots = checkpoint.Snapshots(
        trained.model, trained.optimizer, rank=ctx.rank, size=ctx.world_size
    )
    bench.steps += 1
    ctx.save_checkpoint(bench.steps, snapshots.take(checkpoint.State(step=recipe.steps)))
    saved = ctx.saved_checkpoint(bench.steps)
    seconds = perf_counter() - began
    model = fresh(recipe.architecture, recipe.fields, ctx.seed + 1).to(bench.device)
    optimizer = optimizer_for(model, OptimizerConfig(beta2=0.98), rate=RATE, device=bench.device)
    restore(saved, model, optimizer, bench.group)
    rows, some = rows_of(ctx.seed), torch.arange(BATCH)
    with torch.no_grad():
        losses = (TokenLoss(net) for net in (trained.model, model))
        both = [nll(loss, rows.read(some), device=bench.device).item() for loss in losses]
    same = _digest(model) == _digest(trained.model) and both[0] == both[1]
    bench.say(
        "checkpoint",
        "written and read",
        PASSED if same else FAILED,
        figure=seconds,
        unit="s",
        note="" if same else "what was read back is another model",
        roles=_ONLY,
    )


def _digest(model: nn.Module) -> str:
    """Return a hash of all weights, bit by bit."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
