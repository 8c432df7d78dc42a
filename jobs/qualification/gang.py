"""What the chips of a pool can do together: one worker a chip, over all nodes."""

from __future__ import annotations

from jobs.qualification import report
from jobs.qualification.bench import SKIPPED, TRAIN, Bench
from jobs.qualification.collectives import check_collectives
from jobs.qualification.coverage import missing
from jobs.qualification.pace import check_pace, soak
from jobs.qualification.training import Recipe, check_training
from orchestrator.job import JobContext, Metrics


def qualify_gang(
    ctx: JobContext,
    *,
    architecture: str = "llama",
    model: dict[str, object] | None = None,
    steps: int = 20,
    soak_seconds: float = 60.0,
    quick: bool = False,
) -> Metrics:
    """Check the whole pool at once.

    Args:
        ctx: The context.
        architecture: Model type of transformers, as the pipeline trains it.
        model: Fields of its config.
        steps: Training steps, which are done twice, and once on the host.
        soak_seconds: How long to work on in the end.
        quick: Repeat less.
    """
    bench = Bench(ctx, quick)
    ctx.latest_checkpoint()  # nothing to go on from, but asked for before the first save
    check_pace(bench)
    check_collectives(bench)
    _train(bench, Recipe(architecture, model or {}, steps))
    soak(bench, soak_seconds)
    return report.finish(bench)


def _train(bench: Bench, recipe: Recipe) -> None:
    """Train, unless the chips lack operators: all of them stop at the same one."""
    try:
        check_training(bench, recipe)
    except RuntimeError as error:
        if not missing(error):
            raise
        note = "operators of the model are missing"
        bench.say("training", "loss", SKIPPED, note=note, roles=(TRAIN,))
