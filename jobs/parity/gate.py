"""The gate: the exported model, by the engine that will serve it, against the reference pass.

It runs on the pool that will serve. Where a threshold is not kept, or not surely, the stage fails,
once and for all: nothing is tried again or elsewhere, and what comes after it does not begin.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.data.tokenizer import load_tokenizer
from jobs.engines import EMBEDDED, TRANSFORMERS
from jobs.engines.weights import further_layers
from jobs.formats.exported_generation import generation_fields
from jobs.formats.folder import Folder
from jobs.parity import distances, proof, table
from jobs.parity.comparison import Comparison, Responses, compare, margins
from jobs.parity.model_config import (
    ends_in_folder,
    fields_in_folder,
    other_fields,
    other_generation_fields,
)
from jobs.parity.quantization_record import choice_in, wrong_statements
from jobs.parity.reading import Floor, Reference, read
from jobs.parity.served_engine import ServedEngine, ServedNorms
from jobs.parity.tokenizer_parts import TEMPLATE, digests, other_parts
from jobs.parity.unseen import AskedEngine, unseen
from jobs.parity.verdict import Evidence, Threshold, demands_of, sentence, thresholds
from jobs.parity.weight_format import form_of
from jobs.parity.weight_norms import Figure, furthest
from orchestrator.job import Hardware, JobContext, Metrics, ParityError

FIGURES = "parity/"  # what the names of its metrics begin with
_NAMED = 8  # of what differs, in the log
_WORDS = 300  # characters of what an engine says
_OF_PLAIN: Mapping[Figure, str] = {
    "weights": "unquantized",
    "rows": "unquantized_rows",
    "sums": "unquantized_sums",
}
AUTO = "auto"  # the plan puts an endpoint's own engine class in its place


def check(  # noqa: PLR0913 - the parameters of a config
    ctx: JobContext,
    *,
    engine: str = AUTO,
    options: dict[str, object] | None = None,
    limits: dict[str, dict[str, float]],
    allowances: dict[str, dict[str, float]],
    factor: float = 3.0,
    confidence: float = 0.95,
) -> Metrics:
    """Compare the input `model` with the input `reference`.

    Args:
        ctx: The context.
        engine: Dotted name of the engine class; `auto` is that of the endpoint, and the embedded
            engine where that names an engine server.
        options: Its keyword arguments.
        limits: For each format what no honest model shows.
        allowances: For each format what a figure may be beyond `factor` times its noise floor.
        factor: As said.
        confidence: How sure it is to be that a limit is kept.

    Raises:
        ParityError: A threshold is not kept, or not surely, or the engine refuses the model.
    """
    demands = demands_of(form_of(ctx.inputs["model"]), limits, allowances, factor, confidence)
    answered = _answered(ctx, engine, options or {})
    compared = compare(answered.reference.responses, answered.responses)
    judged = thresholds(
        Evidence(
            served=compared,
            floor=[floor.comparison for floor in answered.floor],
            margins=margins(answered.reference.scores),
            counts=answered.counts,
            seed=answered.reference.seed,
        ),
        demands,
    )
    why = sentence(judged, answered.form, ctx.hardware.pool)
    _tell(ctx, _verdict(ctx, answered, compared, judged, why))
    values = _metrics(compared, answered.counts, judged)
    values[f"{FIGURES}passed"] = float(not why)
    if why:
        ctx.metrics(values, step=0)
        raise ParityError(why)
    kl_mean = values[f"{FIGURES}limit_kl_mean"]
    proof.write(ctx.output, answered.reference.questions, answered.responses.scores, kl_mean)
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """What the served model says, beside the reference.

    `computed` is the type in which the engine says that it computes, empty where it does not tell;
    `stands_in` is whether it stands in for another engine, an engine server; `refusal` is why the
    embedded engine does not, `further` which layers are left out.
    """

    reference: Reference
    responses: Responses
    counts: Mapping[str, float]
    weights: ServedNorms
    engine: str
    form: str
    computed: str
    stands_in: bool
    refusal: str
    further: tuple[str, ...]

    @property
    def precision(self) -> str:
        """The type in which it computes, as told or as its format makes likely."""
        return self.computed or ("float32" if self.form == "fp32" else "bfloat16")

    @property
    def floor(self) -> tuple[Floor, ...]:
        """The passes that show the noise of what is served.

        What is stored or computed in fewer than 32 bits is as noisy as bfloat16 at least.
        """
        exact = self.form == "fp32" and self.precision == "float32"
        precision = "float32" if exact else "bfloat16"
        return tuple(floor for floor in self.reference.floor if floor.precision == precision)


def _answered(ctx: JobContext, engine: str, options: dict[str, object]) -> _Answered:
    """Ask the served model what the reference was asked.

    Raises:
        ParityError: The engine refuses the model.
    """
    reference, folder = read(ctx.inputs["reference"]), ctx.inputs["model"]
    name, served, refusal = _served(ctx, engine, options)
    with closing(served):
        try:
            responses = served.responses(reference, ctx.progress)
            counts, weights = _counts(ctx, served, reference, responses)
        except ValueError as error:
            pool = ctx.hardware.pool
            raise ParityError(
                f"the engine of pool {pool!r} refuses a question: {error}"
            ) from error
    return _Answered(
        reference=reference,
        responses=responses,
        counts=counts,
        weights=weights,
        engine=name,
        form=form_of(folder),
        computed=served.computed,
        stands_in=engine == AUTO,
        refusal=refusal,
        further=further_layers(folder),
    )


def _served(
    ctx: JobContext, engine: str, options: dict[str, object]
) -> tuple[str, ServedEngine, str]:
    """Return the name of the engine that answers, that, and why the embedded one does not.

    Where an engine server serves, the embedded engine compares what that will read; and
    transformers alone does for types that the embedded engine has no cache for.

    Raises:
        ParityError: It refuses the model.
    """
    folder, refusal = ctx.inputs["model"], ""
    if engine == AUTO:
        try:
            embedded = _engine(EMBEDDED, folder, ctx.hardware, options)
            return EMBEDDED, ServedEngine(embedded, folder), refusal
        except (ValueError, AttributeError, AssertionError, RuntimeError) as error:
            refusal = _words_of(error)
            ctx.log(f"transformers alone answers, for the embedded engine refuses: {refusal}")
    name, more = (TRANSFORMERS, {}) if engine == AUTO else (engine, options)
    try:
        return name, ServedEngine(_engine(name, folder, ctx.hardware, more), folder), refusal
    except (ValueError, OSError) as error:
        raise ParityError(f"the engine of pool {ctx.hardware.pool!r} refuses: {error}") from error


def _words_of(error: Exception) -> str:
    """Return what an error says, on one line; of one that is no refusal also what it is."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}"[:_WORDS]


def _verdict(
    ctx: JobContext,
    answered: _Answered,
    compared: Comparison,
    judged: list[Threshold],
    why: str,
) -> table.ParityVerdict:
    reference, responses = answered.reference, answered.responses
    asked = AskedEngine(
        form=answered.form,
        computed=answered.computed,
        stands_in=answered.stands_in,
        cached=answered.engine != TRANSFORMERS,
        refusal=answered.refusal,
        further=answered.further,
    )
    return table.ParityVerdict(
        why=why,
        format=answered.form,
        pools=(reference.pool, ctx.hardware.pool),
        engine=answered.engine,
        emulated=ctx.hardware.emulated,
        computed=answered.precision,
        places=len(compared.kl),
        texts=len(reference.questions),
        floor=tuple(floor.name for floor in answered.floor),
        thresholds=tuple(judged),
        accuracies=_accuracies(reference, responses),
        weights=answered.weights.source,
        unseen=unseen(reference, responses, answered.weights, asked),
        worst=_worst(reference, responses, compared, ctx.inputs["model"]),
    )


def _engine(name: str, folder: Path, hardware: Hardware, options: dict[str, object]) -> Any:  # noqa: ANN401 - any engine
    module, _, attribute = name.rpartition(".")
    if not module:
        raise TypeError(f"engine={name!r} is no dotted name of an engine class")
    engine_class = getattr(importlib.import_module(module), attribute)
    if not hasattr(engine_class, "score"):
        raise TypeError(f"engine {name!r} can't be compared: it has no `score`, as a Scorer has")
    return engine_class(folder, hardware, **options)


def _counts(
    ctx: JobContext, served: ServedEngine, reference: Reference, responses: Responses
) -> tuple[dict[str, float], ServedNorms]:
    """Return the figures that have no floor, and what was read of the weights."""
    weights = served.weights()
    pairs = [
        pair
        for texts in zip(reference.scores, responses.scores, strict=True)
        for pair in zip(*texts, strict=True)
    ]
    good = [pair for pair in pairs if all(map(distances.usable, pair))]
    folder = Path(ctx.inputs["model"])
    exact, plain = _stated(ctx, reference, folder)
    exact["tokenizer"] += served.other_texts(reference)
    exact["template"] += served.other_chats(reference)
    counts = {
        "nan": float(len(pairs) - len(good)),
        **{name: float(count) for name, count in exact.items()},
        **_changes(ctx, reference, weights, plain),
        "top1": distances.share(score.top[0] == other.top[0] for score, other in good),
    }
    return counts, weights


def _stated(
    ctx: JobContext, reference: Reference, path: Path
) -> tuple[dict[str, int], frozenset[str]]:
    """Return how much the folder says otherwise than it should, by figures.

    Also return the names in memory of what is stored as codes.
    """
    folder = Folder(path)
    choice = choice_in(folder)
    parts = other_parts(reference.tokenizers, digests(load_tokenizer(path)))
    generation = other_generation_fields(reference.generation, generation_fields(path))
    others = {
        "fields of the config that differ": other_fields(reference.config, fields_in_folder(path)),
        "fields of the generation config that differ": generation,
        "parts of the tokenizer that differ": parts,
        "wrong in what the folder says is quantized": wrong_statements(folder, choice),
    }
    for words, names in others.items():
        ctx.log(f"{words}: {', '.join(names[:_NAMED]) or 'none'}{' ...' * (len(names) > _NAMED)}")
    config, _, _, record = map(len, others.values())
    counts = {
        "tokenizer": len(set(parts) - {TEMPLATE}),
        "template": int(TEMPLATE in parts),
        "ends": len(set(reference.ends) ^ set(ends_in_folder(path))),
        "config": config,
        "generation": len(generation),
        "record": record,
    }
    return counts, choice.quantized_in_memory


def _changes(
    ctx: JobContext, reference: Reference, weights: ServedNorms, codes: frozenset[str]
) -> dict[str, float]:
    """Return the largest changes of weights by figures: of all, and of those that are no codes."""
    changes: dict[str, float] = {}
    for figure, of_plain in _OF_PLAIN.items():
        change, name = furthest(reference.norms, weights.norms, figure=figure)
        plain, _ = furthest(reference.norms, weights.norms, codes, figure=figure)
        ctx.log(f"{figure} of {weights.source}: {change:.3g}, most in {name}")
        changes |= {figure: change, of_plain: plain}
    change, name = furthest(reference.norms, weights.norms, figure="groups")
    ctx.log(f"groups of {weights.source}: {change:.3g} octaves, most in {name}")
    return {**changes, "groups": change}


def _metrics(
    compared: Comparison, counts: Mapping[str, float], judged: list[Threshold]
) -> dict[str, float]:
    """Return all figures for the tracker, by the names that its views have."""
    floored = [threshold for threshold in judged if threshold.floor is not None]
    values = {
        **counts,
        "kl_p99": float(np.quantile(compared.kl, 0.99, method="inverted_cdf")),
        "kl_max": float(compared.kl.max()),
        "accuracy": 0.0,
        **{threshold.name: threshold.value for threshold in floored},
        **{
            f"floor_{threshold.name}": threshold.floor
            for threshold in floored
            if threshold.floor is not None
        },
        **{
            f"limit_{threshold.name}": threshold.limit
            for threshold in judged
            if threshold.name == "kl_mean"
        },
        "confidence": min(threshold.confidence or 0.0 for threshold in floored),
        "places": float(len(compared.kl)),
    }
    return {f"{FIGURES}{name}": value for name, value in values.items()}


def _accuracies(reference: Reference, responses: Responses) -> tuple[float, float] | None:
    if reference.task is None:
        return None
    return distances.share(reference.responses.right), distances.share(responses.right)


def _worst(
    reference: Reference, responses: Responses, compared: Comparison, folder: Path
) -> tuple[table.ComparedPrompt, ...]:
    tokenizer, asked = load_tokenizer(folder), reference.questions
    texts = [
        str(tokenizer.decode(question.prompt))
        if question.example is None
        else str(question.example["question"])
        for question in asked
    ]
    sums = np.bincount(compared.text.astype(int), compared.kl, len(asked))
    apart = [float(total) / question.places for total, question in zip(sums, asked, strict=True)]
    return table.worst(texts, asked, apart, (reference.answers, responses.answers))


def _tell(ctx: JobContext, verdict: table.ParityVerdict) -> None:
    """Show the verdict with the attempt, and keep it as the artifact."""
    texts = {"parity.md": table.markdown(verdict), "parity.json": table.as_json(verdict)}
    for name, text in texts.items():
        ctx.report(name, text)
        (ctx.output / name).write_text(text, "utf-8")
    for threshold in verdict.thresholds:
        ctx.log(f"{threshold.name}: {threshold.value:.4g} ({threshold.limit:.4g})")
