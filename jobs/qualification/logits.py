"""Whether the model says on a chip what it says on the host, and twice the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from jobs.qualification.bench import FAILED, LIMITED, PASSED, SERVE, SKIPPED, Bench
from jobs.qualification.coverage import missing
from jobs.qualification.host_reference import BF16, TF32, HostReference, logits_of, stray

_ONLY = (SERVE,)


def check_logits(
    bench: Bench, model: nn.Module, reference: HostReference | None, formats: Sequence[str]
) -> None:
    """Ask the model in float32, and in bfloat16 where the pool serves in it."""
    model = model.to(bench.device).eval()
    _check(bench, model, reference, TF32, "float32")
    if "bf16" in formats:
        _check(bench, model.bfloat16(), reference, BF16, "bfloat16")


def _check(
    bench: Bench, model: nn.Module, reference: HostReference | None, arithmetic: str, name: str
) -> None:
    subject = f"logits {name}"
    try:
        first, second = [logits_of(model, bench.ctx.seed) for _ in range(2)]
    except RuntimeError as error:
        if not missing(error):
            raise
        note = "operators of the model are missing"
        bench.say("reference", subject, SKIPPED, note=note, roles=_ONLY)
        return
    if not bool(first.isfinite().all()):
        bench.say("reference", subject, FAILED, note="some are no numbers", roles=_ONLY)
        return
    if not torch.equal(first, second):
        note = "asked twice, the model answers otherwise"
        bench.say("determinism", subject, LIMITED, note=note, roles=_ONLY)
    if reference is None or not reference.logits.numel():
        note = "there is nothing of the host's to compare with"
        bench.say("reference", subject, LIMITED, note=note, roles=_ONLY)
        return
    far, allowed = stray(first, reference.logits), reference.allowed_logits(arithmetic)
    status = PASSED if far <= allowed else FAILED
    note = f"differ from the host's by {far:.1e} of the largest, {allowed:.0e} is allowed"
    bench.say("reference", subject, status, figure=far, note=note, roles=_ONLY)
