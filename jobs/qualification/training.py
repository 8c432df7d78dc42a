"""A short training of the pipeline's own model: twice alike, as on the host, and saved.

The parts are those of the training job itself: model, gang, step, optimizer, snapshots.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn

from jobs.data.dataset import Rows
from jobs.qualification.bench import FAILED, LIMITED, SKIPPED, TRAIN, Bench
from jobs.qualification.coverage import missing
from jobs.qualification.operators import fresh
from jobs.training import checkpoint
from jobs.training.balance import Balance
from jobs.training.gang import Gang
from jobs.training.loss import TokenLoss, forward, nll
from jobs.training.order import mix
from jobs.training.step import Stepper, in_gang, make_optimizer, wants_bf16

_RATE, _BATCH, _WIDTH, _ROWS = 2e-3, 8, 24, 64
_TOLERANCE, _OF_BF16 = 1e-3, 2e-2
_ONLY = (TRAIN,)


@dataclass(frozen=True, slots=True)
class Trained:
    """A training run: its losses, the model and what its optimizer holds."""

    losses: list[float]
    model: nn.Module
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, for how many steps."""

    architecture: str
    fields: Mapping[str, object]
    steps: int


def check_training(bench: Bench, recipe: Recipe) -> None:
    """Train twice with one seed, compare with the host, and save what came of it."""
    first = _train(bench, recipe, bench.gang)
    second = _train(bench, recipe, bench.gang)
    _check_finite(bench, first.losses + second.losses)
    _check_same(bench, first, second)
    if bench.ctx.rank == 0:
        _check_curve(bench, first, _train(bench, recipe, _alone_on_host(bench)))
    _check_gang(bench, first)
    _check_checkpoint(bench, second, recipe)


def check_logits(bench: Bench, architecture: str, fields: Mapping[str, object]) -> None:
    """Ask the model twice, and the host once: for pools that serve."""
    model = fresh(architecture, fields, bench.ctx.seed).eval()
    tokens = _rows(bench.ctx.seed).tokens[:_BATCH].to(torch.int64)
    try:
        with torch.no_grad():
            wanted = forward(model, tokens)
            model, there = model.to(bench.device), tokens.to(bench.device)
            first, second = forward(model, there).cpu(), forward(model, there).cpu()
    except RuntimeError as error:
        if not missing(error):
            raise
        bench.say("reference", "logits", SKIPPED, note="operators of the model are missing")
        return
    if not torch.equal(first, second):
        bench.say(
            "determinism", "logits", LIMITED, note="asked twice, the model answers otherwise"
        )
    far = float((first - wanted).abs().max() / wanted.abs().max())
    wrong = not far <= _TOLERANCE
    note = f"differ from the host's by {far:.1e} of the largest"
    bench.say("reference", "logits", FAILED if wrong else "passed", figure=far, note=note)


# --- the run ------------------------------------------------------------------------------------


def _rows(seed: int) -> Rows:
    """Return rows with something to learn: each token follows from the one before."""
    generator = torch.Generator().manual_seed(mix(seed, 1))
    starts = torch.randint(3, 256, (_ROWS, 1), generator=generator)
    tokens = ((starts + 5 * torch.arange(_WIDTH)) % 253 + 3).to(torch.int32)
    return Rows(tokens, tokens.clone())


def _alone_on_host(bench: Bench) -> Gang:
    gang = Gang(bench.ctx)
    gang.rank, gang.size, gang.device = 0, 1, torch.device("cpu")
    return gang


def _train(bench: Bench, recipe: Recipe, gang: Gang) -> Trained:
    """Train from fresh weights; the loss of every step is that of the whole batch."""
    ctx, rows = bench.ctx, _rows(bench.ctx.seed)
    model = fresh(recipe.architecture, recipe.fields, ctx.seed).to(gang.device).train()
    optimizer = make_optimizer(model, rate=_RATE, weight_decay=0.1, beta2=0.98, device=gang.device)
    bf16 = wants_bf16("auto", ctx.hardware) and gang.device.type != "cpu"
    stepper = Stepper(
        gang=gang,
        wrapped=in_gang(TokenLoss(model, bf16=bf16), rows, gang),
        optimizer=optimizer,
        rows=rows,
        pad=0,
        accumulate=1,
        clip=1.0,
        balance=Balance(model, gang, rate=1e-3),
    )
    losses = []
    for step in range(recipe.steps):
        if gang.size == ctx.world_size:
            bench.step()
        torch.manual_seed(mix(ctx.seed, step))
        chosen = torch.arange(step * _BATCH, (step + 1) * _BATCH) % _ROWS
        losses.append(gang.sum(stepper.take(chosen, _RATE).loss).item())
    return Trained(losses, model, optimizer)


# --- what is looked at --------------------------------------------------------------------------


def _check_finite(bench: Bench, losses: list[float]) -> None:
    bad = [step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)]
    if bad:
        note = f"the loss of step {bad[0]} is {losses[bad[0] - 1]!r}"
        bench.say("training", "loss", FAILED, note=note, roles=_ONLY)


def _check_same(bench: Bench, first: Trained, second: Trained) -> None:
    pairs = zip(first.losses, second.losses, strict=True)
    other = [step for step, (one, two) in enumerate(pairs, 1) if one != two]
    if other:
        note = f"with one seed, the losses part at step {other[0]}"
    elif _digest(first.model) != _digest(second.model):
        note = "with one seed, the losses are the same, the weights are not"
    else:
        note = ""
    bench.say("determinism", "training", LIMITED if note else "passed", note=note, roles=_ONLY)


def _check_curve(bench: Bench, found: Trained, wanted: Trained) -> None:
    bf16 = wants_bf16("auto", bench.ctx.hardware)
    allowed = _OF_BF16 if bf16 else _TOLERANCE
    pairs = zip(found.losses, wanted.losses, strict=True)
    errors = [abs(one - two) / abs(two) for one, two in pairs]
    worst = max(range(len(errors)), key=lambda step: (math.isnan(errors[step]), errors[step]))
    wrong = not errors[worst] <= allowed
    note = (
        f"loss {found.losses[worst]:.4f} at step {worst + 1}, {wanted.losses[worst]:.4f} on the "
        f"host; ends at {found.losses[-1]:.4f}"
    )
    status = FAILED if wrong else "passed"
    bench.say("reference", "loss", status, figure=errors[worst], note=note, roles=_ONLY)


def _check_gang(bench: Bench, trained: Trained) -> None:
    """Look whether all workers hold the same weights."""
    digests = set(bench.gang.gather(_digest(trained.model)))
    if len(digests) > 1:
        note = f"{len(digests)} different models in one gang"
        bench.say("training", "weights", FAILED, note=note, roles=_ONLY)


def _check_checkpoint(bench: Bench, trained: Trained, recipe: Recipe) -> None:
    """Save the state by way of the context, read it back, and go on from it."""
    ctx, began = bench.ctx, perf_counter()
    snapshots = checkpoint.Snapshots(
        trained.model, trained.optimizer, rank=ctx.rank, size=ctx.world_size
    )
    bench.steps += 1
    ctx.save_checkpoint(bench.steps, snapshots.take(checkpoint.State(step=recipe.steps)))
    found = ctx.saved_checkpoint(bench.steps)
    seconds = perf_counter() - began
    model = fresh(recipe.architecture, recipe.fields, ctx.seed + 1).to(bench.device)
    optimizer = make_optimizer(
        model, rate=_RATE, weight_decay=0.1, beta2=0.98, device=bench.device
    )
    checkpoint.restore(found, model, optimizer)
    rows, some = _rows(ctx.seed), torch.arange(_BATCH)
    with torch.no_grad():
        losses = (TokenLoss(one) for one in (trained.model, model))
        both = [nll(one, rows, some, device=bench.device).item() for one in losses]
    same = _digest(model) == _digest(trained.model) and both[0] == both[1]
    bench.say(
        "checkpoint",
        "written and read",
        "passed" if same else FAILED,
        figure=seconds,
        unit="s",
        note="" if same else "what was read back is another model",
        roles=_ONLY,
    )


def _digest(model: nn.Module) -> str:
    """Return a hash of all weights, bit by bit."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        found.update(name.encode())
        found.update(parameter.detach().cpu().numpy().tobytes())
    return found.hexdigest()
