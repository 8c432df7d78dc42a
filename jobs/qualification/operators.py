"""Whether the device has every operator of the pipeline's own model, and has it right.

The model is trained a step and generates a few tokens while each of its operators is tried by
itself. Every operator that is missing is named, with what needs it.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import nn

from jobs.qualification.bench import BOTH, FAILED, LIMITED, SERVE, TRAIN, Bench
from jobs.qualification.coverage import Recorder, Tried, missing
from jobs.qualification.fused_table import covered
from jobs.training.loss import TokenLoss
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.step import wants_bf16

FORWARD, BACKWARD, OPTIMIZER, GENERATION = "forward", "backward", "optimizer", "generation"
_OF_TRAINING = frozenset({FORWARD, BACKWARD, OPTIMIZER})
_OF_SERVING = frozenset({FORWARD, GENERATION})
_ON_HOST = re.compile(r"operator '([\w:.]+)' is not currently supported on the \w+ backend")
_WIDTH, _NEW = 2048, 3
_OF_HOST = (2, 16)  # rows, and how wide


def check_operators(bench: Bench, model: nn.Module, roles: tuple[str, ...]) -> None:
    """Find every operator that the model needs and the device lacks, or has wrong."""
    recorder = Recorder(bench.device, bench.alive)
    model = model.to(bench.device)
    with _listening() as said:
        if TRAIN in roles:
            _train(bench, recorder, model)
        if SERVE in roles:
            _generate(bench, recorder, model)
    _tell(bench, list(recorder.tried.values()))
    for name in sorted(set(_ON_HOST.findall(said.getvalue()))):
        note = "is done on the host, which costs time"
        bench.say("operators", name, LIMITED, note=note)


def _tokens(bench: Bench, model: Any) -> torch.Tensor:  # noqa: ANN401 - a transformers model
    """Return [rows, width] tokens: as wide as kernels for real texts are chosen by, on a chip."""
    most = getattr(model.config, "max_position_embeddings", None) or _WIDTH
    rows, width = (1, min(_WIDTH, most)) if bench.real else _OF_HOST
    return (torch.arange(rows * width) % 253 + 3).reshape(rows, width).to(bench.device)


def _train(bench: Bench, recorder: Recorder, model: Any) -> None:  # noqa: ANN401 - a transformers model
    """Take a training step under the eyes of the recorder."""
    tokens = _tokens(bench, model)
    optimizer = optimizer_for(model, OptimizerConfig(beta2=0.98), rate=1e-3, device=bench.device)
    measure = TokenLoss(model, bf16=wants_bf16("auto", bench.ctx.hardware))
    with recorder:
        recorder.phase = FORWARD
        loss = measure(tokens[:, :-1], tokens[:, 1:]) / tokens[:, 1:].numel()
        recorder.phase = BACKWARD
        _past_gaps(lambda: torch.autograd.backward(loss))
    recorder.flush()
    with recorder:
        recorder.phase = OPTIMIZER
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    if not bool(torch.isfinite(loss.detach().cpu())):
        note = "the loss of its first step is no number"
        bench.say("operators", "model", FAILED, note=note, roles=BOTH)


def _generate(bench: Bench, recorder: Recorder, model: Any) -> None:  # noqa: ANN401 - a transformers model
    """Generate a few tokens, as an engine does, under the eyes of the recorder."""
    prompt = _tokens(bench, model)[:1, :-_NEW]
    model.eval()
    with recorder, torch.no_grad():
        recorder.phase = GENERATION
        model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=_NEW,
            pad_token_id=0,
            eos_token_id=2,
        )


def _past_gaps(act: Callable[[], object]) -> None:
    """Do what may end with a gap: which operator that was, trying them one by one will show."""
    try:
        act()
    except RuntimeError as error:
        if not missing(error):
            raise


def _tell(bench: Bench, tried: list[Tried]) -> None:
    """Say each operator once, with all that uses it; the worst that was seen of it stands."""
    phases: dict[str, set[str]] = {}
    bad: dict[str, str] = {}
    for operator in tried:
        phases.setdefault(operator.name, set()).update(operator.phases)
        if operator.gap or operator.wrong:
            bad.setdefault(
                operator.name, f"missing: {operator.gap}" if operator.gap else operator.wrong
            )
    for name, what in sorted(bad.items()):
        used = phases[name]
        roles = tuple(
            role for role, needs in ((TRAIN, _OF_TRAINING), (SERVE, _OF_SERVING)) if used & needs
        )
        note = f"{what} (in {', '.join(sorted(used))})"
        bench.say("operators", name, FAILED, note=note, roles=roles)
    kind = bench.device.type
    unseen = sorted({x.name for x in tried if not x.compared and not _elsewhere(x.name, kind)})
    if unseen:
        note = f"there is nothing to compare with: {', '.join(unseen)}"
        bench.say("operators", "not compared", LIMITED, note=note)
    good = len(phases.keys() - bad.keys())
    note = f"{good} of {len(phases)} operators of the model are there and right"
    bench.say("operators", "model", figure=float(good), note=note)


def _elsewhere(name: str, kind: str) -> bool:
    """Whether an operator of a device of this type has a check of its own."""
    return "attention" in name or covered(name, kind)


@contextmanager
def _listening() -> Iterator[io.StringIO]:
    """Hear what is printed as an error meanwhile, and print it afterwards."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield said
    finally:
        sys.stderr.write(said.getvalue())
