"""Trains a causal language model over a gang, with checkpoints that it can go on from.

The result is a Hugging Face folder with its tokenizer. Same seed, same data and same number of
workers give the same bits on CPU, interrupted or not; another number of workers gives the same
model within rounding, from the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from jobs.data.tokenizer import load_tokenizer
from jobs.data.tokens.training_data import (
    TrainingData,
    open_training,
    rows_config,
    tokenizer_folder,
)
from jobs.engines.weights import further_layers, load, say_no_further_layers
from jobs.training import checkpoint
from jobs.training import model as models
from jobs.training.balance import Balance
from jobs.training.layer_passes import checkpoint_activations, compile_layers
from jobs.training.loss import TokenLoss
from jobs.training.master_weights import keep_master_weights
from jobs.training.optimizers import optimizer_for, optimizer_of
from jobs.training.order import mix
from jobs.training.parallel.degrees import MeshDegrees, parallel_of
from jobs.training.parallel.experts import check_passes
from jobs.training.parallel.forecast import forecast as forecast_pretrain
from jobs.training.parallel.restoring import restore
from jobs.training.parallel.saving import save_dealt
from jobs.training.parallel.sharding import device_mesh, expert_mesh, reshard
from jobs.training.parallel.starting import Source, deal_out, outlined
from jobs.training.parallel.stored_chunks import stored_chunks
from jobs.training.part_times import PartTimes
from jobs.training.peak_memory import peaks
from jobs.training.pretraining_recipe import (
    PretrainingRecipe,
    at_the_least,
    micro_batches,
)
from jobs.training.process_group import ProcessGroup
from jobs.training.profiling import StepProfiler, profiled_steps
from jobs.training.row_checks import check_apart, check_rows, vocabulary
from jobs.training.schedule import schedule_of
from jobs.training.step import Stepper, data_parallel, wants_bf16
from jobs.training.trainer import Every, Trainer
from jobs.training.utilization import speed_of
from orchestrator.job import Checkpoint, JobContext, Metrics

__all__ = ["forecast_pretrain", "pretrain"]


def pretrain(  # noqa: PLR0913 - the parameters of a job are its configuration
    ctx: JobContext,
    *,
    architecture: str = "llama",
    model: dict[str, object] | None = None,
    rows: dict[str, object] | None = None,
    steps: int = 1600,
    batch_size: int = 64,
    accumulate: int = 1,
    micro_batch_tokens: int | None = None,
    optimizer: dict[str, object] | None = None,
    schedule: dict[str, object] | None = None,
    learning_rate: float = 3e-3,
    warmup: int = 100,
    learning_rate_floor: float = 0.05,
    weight_decay: float = 0.1,
    beta2: float = 0.99,
    clip: float = 1.0,
    patience: int = 3,
    router_bias_rate: float = 1e-3,
    parallel: dict[str, int] | None = None,
    activation_checkpointing: bool = False,
    compile: str | None = None,  # noqa: A002 - the field's word
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    weights: Literal["fp32", "bf16"] = "fp32",
    log_every: int = 10,
    validate_every: int = 200,
    validation_rows: int = 256,
    checkpoint_every: int = 200,
    profile: dict[str, int] | None = None,
) -> Metrics:
    """Train on the input `data`, or a mixture; from the input `model` where there is one.

    Args:
        ctx: The context.
        architecture: Model type of transformers (`llama`, `qwen3`, `gpt2`, ...).
        model: Fields of its config.
        rows: How rows are made of tokens (`RowsConfig`), where the data are tokens.
        steps: Optimizer steps in all.
        batch_size: Rows a step, over all workers.
        accumulate: Micro-batches that a worker splits its part of a batch into.
        micro_batch_tokens: Most tokens that a worker takes at once, in place of `accumulate`; a
            validation does, too.
        optimizer: Which one (`{kind: muon}`, AdamW where nothing is said), and its fields
            (`OptimizerConfig`).
        schedule: How the learning rate falls (`{kind: wsd, decay: 0.2}`, or `linear`; along a
            cosine where nothing is said), and its fields (`Schedule`).
        learning_rate: The peak rate.
        warmup: Steps until the peak.
        learning_rate_floor: Share of the peak that it ends at.
        weight_decay: Of matrices.
        beta2: Of AdamW.
        clip: Greatest norm of the gradient.
        patience: Steps in a row without a finite loss or gradient that are a divergence.
        router_bias_rate: What a step moves the bias of each expert by, to even their loads.
        parallel: How the model is dealt out to the workers (`MeshDegrees`); each holds all of it
            where nothing is said.
        activation_checkpointing: Whether a layer keeps its input alone for the backward pass, and
            is computed once more there.
        compile: Backend of `torch.compile` for each layer (`inductor`, or a maker's own).
        precision: `fp32`, `bf16`, or `auto`: bf16 where a real accelerator has it.
        weights: Type that the weights are rounded to after each step, to be served as trained.
        log_every: Steps between metric points.
        validate_every: Steps between validations.
        validation_rows: Most rows of a validation.
        checkpoint_every: Steps between checkpoints.
        profile: Steps that torch's profiler traces, of the first worker (`{step: 50, steps: 3}`).
    """
    peak = learning_rate * ctx.adjust.rate
    degrees = parallel_of(parallel, ctx.world_size) if parallel else None
    if degrees:
        check_passes(degrees, compile)
    workers = degrees.data if degrees else ctx.world_size
    recipe = PretrainingRecipe(
        batch_size=batch_size,
        micro_batches=micro_batches(ctx, batch_size, accumulate, workers, micro_batch_tokens),
        schedule=schedule_of(
            schedule, peak=peak, warmup=warmup, steps=steps, floor=learning_rate_floor
        ),
        optimizer=optimizer_of(optimizer, beta2=beta2, weight_decay=weight_decay),
        clip=clip,
        patience=patience,
        router_bias_rate=router_bias_rate,
        parallel=degrees,
        activation_checkpointing=activation_checkpointing,
        compile=compile,
        precision=precision,
        weights=weights,
        every=Every(log=log_every, validate=validate_every, checkpoint=checkpoint_every),
        validation_rows=validation_rows,
        rows=rows_config(rows or {}),
        profile=profiled_steps(profile, steps),
    )
    with at_the_least(recipe.micro_batches.are_single_rows):
        return _train(ctx, recipe, partial(models.build, architecture, model or {}))


def _train(
    ctx: JobContext, recipe: PretrainingRecipe, fresh: Callable[[Any], nn.Module]
) -> Metrics:
    """Train the model of the newest checkpoint, of the input `model`, or the `fresh` one."""
    group = _process_group(ctx, recipe.parallel)
    with tokenizer_folder(ctx, recipe.rows) as folder:
        tokenizer = load_tokenizer(folder)
    data = open_training(ctx, recipe.rows, recipe.validation_rows, tokenizer)
    latest = ctx.latest_checkpoint()
    group.agree(latest.step if latest else 0)
    torch.manual_seed(mix(ctx.seed))
    net, source = _model(ctx, latest, lambda: fresh(tokenizer), group)
    data.check_vocabulary(vocabulary(net))
    check_rows(ctx, recipe.rows, data, net)
    loss = _loss(ctx, recipe, net)
    if group.mesh is not None:
        with ctx.busy("dealing out the model"):
            deal_out(loss, source, group, come=latest is not None)
    del source  # it may be large
    net.to(group.device).train()
    trainer = _trainer(ctx, recipe, group, loss, data, latest)
    check_apart(data, loss)
    if group.mesh is not None:
        loss.settle()
        reshard(loss)
    steps = recipe.schedule.steps
    if uneven := trainer.stepper.balance.uneven:
        ctx.log(
            f"nothing evens the load of the experts of layers {', '.join(uneven)}: the model has "
            f"no bias for their choice, and its config no loss; see router/load"
        )
    ctx.log(
        f"{models.parameters(net):,} parameters, {len(trainer.stepper.rows):,} rows, "
        f"{ctx.world_size} workers, step {trainer.state.step} of {steps}"
    )
    single = trainer.stepper.accumulate == recipe.micro_batches.most_rows
    with at_the_least(single and not recipe.micro_batches.are_single_rows):
        last = trainer.run()
    if group.mesh is not None:
        held = peaks(group)
        ctx.log(f"memory of a worker: {min(held):.2f} to {max(held):.2f} GB at the most")
        last = {**last, "train/memory_gb": max(held)}
    # Weights that are rounded to BF16 are stored in it: half the bytes, and nothing is lost.
    dtype = torch.bfloat16 if recipe.weights == "bf16" else None
    if group.mesh is not None:
        save_dealt(net, ctx, dtype)
    elif ctx.rank == 0:
        models.save(net, ctx.output, dtype)
    if ctx.rank == 0:
        tokenizer.save_pretrained(ctx.output)
    return {**last, "train/steps": float(steps), "train/parameters": float(models.parameters(net))}


def _loss(ctx: JobContext, recipe: PretrainingRecipe, net: nn.Module) -> TokenLoss:
    """Return the loss of `net`, computed as the recipe says."""
    if recipe.activation_checkpointing:
        checkpoint_activations(net)
    if recipe.compile:
        compile_layers(net, recipe.compile)
    return TokenLoss(net, bf16=wants_bf16(recipe.precision, ctx.hardware))


def _trainer(
    ctx: JobContext,
    recipe: PretrainingRecipe,
    group: ProcessGroup,
    loss: TokenLoss,
    data: TrainingData,
    latest: Checkpoint | None,
) -> Trainer:
    """Return the trainer of a loss, from where the checkpoint stands."""
    optimizer = optimizer_for(
        loss.model, recipe.optimizer, rate=recipe.schedule.peak, device=group.device
    )
    state = _state(ctx, recipe, latest)
    if latest is not None:
        with ctx.busy("reading the checkpoint"):
            restore(latest, loss.model, optimizer, group)
    if recipe.weights == "bf16":
        keep_master_weights(optimizer, torch.bfloat16)
    stepper = _stepper(ctx, recipe, group, data, loss, optimizer)
    return Trainer(
        ctx=ctx,
        loss=loss,
        stepper=stepper,
        schedule=recipe.schedule,
        order=data.order,
        batch_size=recipe.batch_size,
        every=recipe.every,
        validation=data.validation,
        state=state,
        patience=recipe.patience,
        speed=speed_of(
            ctx,
            loss.model,
            dtype="bfloat16" if loss.bf16 else "float32",
            width=max(1, data.rows.width - 1),
        ),
        profiler=StepProfiler(ctx, recipe.profile),
        ahead=data.ahead,
    )


def _stepper(
    ctx: JobContext,
    recipe: PretrainingRecipe,
    group: ProcessGroup,
    data: TrainingData,
    loss: TokenLoss,
    optimizer: torch.optim.Optimizer,
) -> Stepper:
    """Return what takes steps over the training rows of `data`."""
    return Stepper(
        group=group,
        wrapped=data_parallel(loss, data.rows, group),
        optimizer=optimizer,
        rows=data.rows,
        pad=data.pad,
        accumulate=recipe.micro_batches.count(data.rows.width),
        clip=recipe.clip,
        balance=Balance(loss.model, group, rate=recipe.router_bias_rate),
        times=PartTimes(None if ctx.hardware.emulated else group.device),
    )


def _process_group(ctx: JobContext, parallel: MeshDegrees | None) -> ProcessGroup:
    """Return the workers, on the mesh that the recipe asks for; one alone has none."""
    if parallel is None or ctx.world_size == 1:
        return ProcessGroup(ctx)
    device = torch.device(ctx.device)
    return ProcessGroup(ctx, device_mesh(parallel, device), expert_mesh(parallel, device))


def _model(
    ctx: JobContext,
    latest: Checkpoint | None,
    fresh: Callable[[], nn.Module],
    group: ProcessGroup,
) -> tuple[nn.Module, Source | None]:
    """Return a model for the checkpoint, else the input `model`, else a fresh one.

    One that is to be dealt out has no weights; the first worker has them by the second then.
    """

    def initial() -> nn.Module:
        if "model" not in ctx.inputs:
            return fresh()
        loaded: nn.Module = load(ctx.inputs["model"], torch.float32, "cpu")
        if further := further_layers(ctx.inputs["model"]):
            say_no_further_layers(loaded)
            ctx.log(f"{', '.join(further)}: layers that predict further tokens are not trained")
        return loaded

    names = stored_chunks(latest, group) if latest else ()
    if group.mesh is None:
        return checkpoint.shape(latest, names) if latest else initial(), None
    if latest is None:
        return outlined(initial, group, fresh="model" not in ctx.inputs)
    with torch.device("meta"):
        return checkpoint.shape(latest, names), None


def _state(
    ctx: JobContext, recipe: PretrainingRecipe, latest: Checkpoint | None
) -> checkpoint.State:
    """Return where to start: at the checkpoint, if it is of this seed and optimizer.

    Raises:
        ValueError: It is of others.
    """
    if latest is None:
        return checkpoint.State(seed=ctx.seed, optimizer=recipe.optimizer.kind)
    state = checkpoint.read_state(latest)
    if state.seed != ctx.seed:
        raise ValueError(
            f"checkpoint of step {state.step} was made with seed {state.seed!r}, this run has "
            f"{ctx.seed!r}: its data order can't be continued; start a new run"
        )
    if state.optimizer not in {"", recipe.optimizer.kind}:
        raise ValueError(
            f"checkpoint of step {state.step} was made with optimizer.kind={state.optimizer!r}, "
            f"this attempt has {recipe.optimizer.kind!r}: what one keeps is nothing to the other; "
            f"keep the kind on all pools, or start a new run from the model"
        )
    return replace(state, optimizer=recipe.optimizer.kind)
