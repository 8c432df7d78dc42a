"""Which stages must pass before an endpoint serves, and by which engine they ask its model.

A guard of an endpoint is a job of role `serve` that reads the model of the endpoint and that the
endpoint's stage comes after. Its parameter `engine: auto` means the engine of the endpoint, where
that is a class; what an engine server will read is compared by the job's own.

A guard that asks for a `confidence` needs texts: its `allowances` say of each format which share
of the greedy answers may differ, and so many of the `questions` of a stage that it reads must be
alike that the share is surely less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from orchestrator.core.errors import Problem
from orchestrator.core.spec import formats
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.stages import Json, Pipeline, Stage

ENGINE, OPTIONS, AUTO = "engine", "options", "auto"
# Metric by which a guard tells the mean KL divergence that it has derived for the model, nats.
KL_MEAN_LIMIT = "parity/limit_kl_mean"
_FORMAT = formats.PARAMETER
# The quantile that stands for the largest divergence, and the fewest places that it takes.
QUANTILES = ((0.999, 5000), (0.99, 500), (0.95, 0))
# What of a calibration leaves no weight as it was, and the limits that would have to let it pass.
_MOVES = "SmoothQuantModifier"
_OF_WEIGHTS = ("weights", "rows", "sums")
_LOOSE = 1000.0


def guards(stages: Iterable[Stage], serving: Stage) -> tuple[Stage, ...]:
    """Return the stages that must pass before `serving` begins, of all `stages`."""
    if serving.endpoint is None:
        return ()
    model, before = serving.inputs.get(serving.endpoint.model), set(serving.upstream)
    return tuple(
        stage
        for stage in stages
        if stage.job
        and stage.role is Role.SERVE
        and stage.name in before
        and model in stage.inputs.values()
    )


def with_engines(pipeline: Pipeline) -> Pipeline:
    """Return `pipeline` with the engine of an endpoint in place of each `auto` of its guards."""
    stages = pipeline.by_name
    engines = {
        guard.name: serving.endpoint
        for serving in pipeline.stages
        if serving.endpoint and serving.endpoint.server is None
        for guard in guards((stages[n] for n in serving.upstream if n in stages), serving)
        if guard.params.get(ENGINE) == AUTO
    }
    changed = tuple(
        replace(
            stage,
            params={
                OPTIONS: dict(endpoint.engine_options),
                **stage.params,
                ENGINE: endpoint.engine,
            },
        )
        if (endpoint := engines.get(stage.name))
        else stage
        for stage in pipeline.stages
    )
    return replace(pipeline, stages=changed)


@dataclass(frozen=True, slots=True)
class Texts:
    """How many questions stage `source` asks, and the fewest that a guard can pass by.

    `places` is how many tokens of each are scored at most, 0 where nobody says.
    """

    source: str
    questions: int
    fewest: int
    confidence: float
    form: str
    places: int = 0

    @property
    def line(self) -> str:
        """What a plan says of it."""
        return (
            f"{self.questions} questions are asked by {self.source}; {self.fewest} answers alike "
            f"are the fewest that make {self.form} {self.confidence:.0%} sure{self._tail}"
        )

    @property
    def _tail(self) -> str:
        """By what the largest divergences are judged."""
        most = self.questions * self.places
        if not most:
            return ""
        quantile = next((q for q, fewest in QUANTILES if most >= fewest), QUANTILES[-1][0])
        return f"; of {most:,} places at most kl_tail is judged at quantile {quantile:g} or below"


def texts_of(stages: Mapping[str, Stage], guard: Stage) -> Texts | None:
    """Return how many texts a guard is given and needs; `None` where its parameters don't say."""
    sure, allowances = guard.params.get("confidence"), guard.params.get("allowances")
    sources = [stages[name] for name in guard.inputs.values() if name in stages]
    form = next(
        (str(source.params[_FORMAT]) for source in sources if _FORMAT in source.params), ""
    )
    allowed = allowances.get(form) if isinstance(allowances, Mapping) else None
    share = allowed.get("greedy") if isinstance(allowed, Mapping) else None
    if not (_is_share(sure) and _is_share(share)):
        return None
    fewest = math.ceil(math.log(1.0 - sure) / math.log(1.0 - share))
    for source in sources:
        questions, places = (source.params.get(name) for name in ("questions", "places"))
        if isinstance(questions, int):
            most = places if isinstance(places, int) else 0
            return Texts(source.name, questions, fewest, sure, form, most)
    return None


def moved_weights(stages: Mapping[str, Stage], guard: Stage) -> Iterator[str]:
    """Yield what a plan says of a guard that takes what a recipe makes for another model."""
    limits = guard.params.get("limits")
    for source in (stages[name] for name in guard.inputs.values() if name in stages):
        recipe, form = source.params.get("recipe"), source.params.get(_FORMAT)
        modifiers = recipe.get("modifiers") if isinstance(recipe, Mapping) else None
        of_format = limits.get(form) if isinstance(limits, Mapping) else None
        if not (isinstance(modifiers, Mapping) and isinstance(of_format, Mapping)):
            continue
        names = [name for name in of_format if _is_of_weights(name, of_format[name])]
        if _MOVES in modifiers and names:
            yield (
                f"{_MOVES} in the recipe of {source.name} moves scales from layer to layer: "
                f"{guard.name} refuses such weights, unless limits.{form} of {', '.join(names)} "
                f"are {_LOOSE:g}"
            )


def _is_of_weights(name: str, limit: Json) -> bool:
    """Whether a limit is one that compares weights, and is not loose."""
    compares = name.startswith("unquantized") or name in _OF_WEIGHTS
    return compares and isinstance(limit, int | float) and limit < _LOOSE


def text_problems(pipeline: Pipeline) -> Iterator[Problem]:
    """Yield each stage that asks fewer questions than a guard can pass by."""
    stages = pipeline.by_name
    for guard in pipeline.stages:
        texts = texts_of(stages, guard)
        if texts and texts.questions < texts.fewest:
            path = f"pipeline.stages.{texts.source}.params.questions"
            what = f"{texts.questions!r} questions are too few for stage {guard.name!r}"
            hint = (
                f"ask {texts.fewest} at least, for {texts.form} to be {texts.confidence:.0%} sure"
            )
            yield Problem(path, what, hint)


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and 0.0 < value < 1.0
