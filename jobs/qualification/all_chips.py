"""What the chips of a pool can do together: one worker a chip, over all nodes."""

from __future__ import annotations

from jobs.qualification import report
from jobs.qualification.bench import BOTH, SKIPPED, TRAIN, Bench
from jobs.qualification.collectives import check_collectives
from jobs.qualification.coverage import missing
from jobs.qualification.curve import ShortTraining
from jobs.qualification.host_reference import reference_of
from jobs.qualification.layers import works
from jobs.qualification.memory_errors import watched
from jobs.qualification.pace import check_pace, soak
from jobs.qualification.training import check_training
from orchestrator.job import JobContext, Metrics


def qualify_gang(  # noqa: PLR0913 - the parameters of a job are its configuration
    ctx: JobContext,
    *,
    architecture: str = "llama",
    model: dict[str, object] | None = None,
    roles: list[str] | None = None,
    formats: list[str] | None = None,
    memory_errors: list[str] | None = None,
    memory_errors_pattern: str = "",
    steps: int = 20,
    soak_seconds: float = 60.0,
    quick: bool = False,
) -> Metrics:
    """Check the whole pool at once.

    Args:
        ctx: The context.
        architecture: Model type of transformers, as the pipeline trains it.
        model: Fields of its config.
        roles: What the pool is wanted for; both where none is given.
        formats: Formats of weights that the chip can serve.
        memory_errors: The maker's command that tells how many errors of memory there were.
        memory_errors_pattern: Regular expression that reads what it prints.
        steps: Training steps, which are done twice.
        soak_seconds: How long to work on in the end.
        quick: Repeat less.
    """
    bench = Bench(ctx, quick)
    ctx.latest_checkpoint()  # nothing to go on from, but asked for before the first save
    work = works(bench, bench.device, roles or BOTH, formats or ())
    with watched(bench, memory_errors or (), memory_errors_pattern):
        check_pace(bench, work)
        check_collectives(bench)
        _train(bench, ShortTraining(architecture, model or {}, steps, ctx.seed))
        soak(bench, work, soak_seconds)
    return report.finish(bench)


def _train(bench: Bench, recipe: ShortTraining) -> None:
    """Train, unless the chips lack operators: all of them stop at the same one."""
    try:
        check_training(bench, recipe, reference_of(bench.ctx))
    except RuntimeError as error:
        if not missing(error):
            raise
        note = "operators of the model are missing"
        bench.say("training", "loss", SKIPPED, note=note, roles=(TRAIN,))
