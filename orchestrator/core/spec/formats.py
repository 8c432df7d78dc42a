"""In which format a model is written, so that the pools that shall serve it can.

The stage that makes the model of an endpoint names the format by its parameter `format`; `auto`
there means the first of the endpoint's formats that its pools serve. `dialect: auto` means that
of the reader there: vLLM on Ascend takes MXFP8 from other files than elsewhere. The bound pool
decides: a fallback that can't serve what is made for it is left out, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import get_args

from orchestrator.core.errors import Problem
from orchestrator.core.spec.engines import USUAL, EngineSpec
from orchestrator.core.spec.hardware import Dialect, Fleet, Format, Pool
from orchestrator.core.spec.stages import Bindings, Pipeline, Stage

PARAMETER, DIALECT, RECIPE = "format", "dialect", "recipe"
DATA = "data"  # input of a stage that calibrates
BUILT = "model"  # parameter, and input, of the stages that make one
ARCHITECTURE = "architecture"  # parameter of those: the type of the model
AUTO = "auto"
FORMATS: tuple[Format, ...] = get_args(Format)
_USUAL: Format = "bf16"  # where nobody serves what is made
_CALIBRATED: tuple[Format, ...] = ("int8", "fp8")  # what recipes of llm-compressor make here
PLAIN = frozenset({"bf16", "fp32"})  # all readers take them alike

# Who reads the first reads the others: scales of `fp8_ue8m0` are float32 as those of `fp8` are,
# and powers of two besides.
_COVERS: Mapping[Format, frozenset[Format]] = MappingProxyType({"fp8": frozenset({"fp8_ue8m0"})})


def serves(pool: Pool, form: Format, server: EngineSpec | None = None) -> bool:
    """Return whether the chips of `pool` can serve `form`, and `server` can read it there."""
    able = pool.accelerator.formats
    chips = form in able or any(form in _COVERS.get(native, ()) for native in able)
    return chips and (server is None or server.reads(form, pool))


def with_formats(pipeline: Pipeline, fleet: Fleet, bindings: Bindings) -> Pipeline:
    """Return `pipeline` with a format in place of each `auto` that can be decided."""
    readers: dict[str, list[Stage]] = {}
    for stage in pipeline.stages:
        if stage.endpoint and stage.endpoint.model in stage.inputs:
            readers.setdefault(stage.inputs[stage.endpoint.model], []).append(stage)
    return replace(
        pipeline,
        stages=tuple(
            _decided(stage, readers.get(stage.name, ()), fleet, bindings)
            for stage in pipeline.stages
        ),
    )


def made_format(stages: Mapping[str, Stage], serving: Stage) -> str | None:
    """Return the format in which the model that `serving` serves is made by one of `stages`.

    `None` where the stage that makes it says nothing of a format, `auto` where none fits.
    """
    source = serving.inputs.get(serving.endpoint.model) if serving.endpoint else None
    maker = None if source is None else stages.get(source)
    named = maker.params.get(PARAMETER) if maker else None
    return named if isinstance(named, str) and named in (*FORMATS, AUTO) else None


def built(stages: Mapping[str, Stage], serving: Stage) -> Mapping[str, object]:
    """Return the fields of the config of the model that a stage trains for `serving` to serve."""
    params = (maker.params.get(BUILT) for maker in _makers(stages, serving))
    return next((fields for fields in params if isinstance(fields, Mapping)), {})


def architecture(stages: Mapping[str, Stage], serving: Stage) -> str:
    """Return the type of the model that a stage trains for `serving`; empty where none says."""
    params = (maker.params.get(ARCHITECTURE) for maker in _makers(stages, serving))
    return next((param for param in params if isinstance(param, str)), "")


def _makers(stages: Mapping[str, Stage], serving: Stage) -> Iterator[Stage]:
    """Yield the stages that make what `serving` serves, the last first."""
    name, seen = serving.inputs.get(serving.endpoint.model) if serving.endpoint else None, 0
    while name is not None and name in stages and seen < len(stages):
        yield stages[name]
        name, seen = stages[name].inputs.get(BUILT), seen + 1


def served_format(stages: Mapping[str, Stage], serving: Stage, pool: Pool) -> Format | None:
    """Return the format in which `pool` serves what `serving` serves, `None` where it can't."""
    weights_format = made_format(stages, serving)
    offered = serving.endpoint.formats if serving.endpoint else ()
    if weights_format is not None:
        offered = tuple(form for form in FORMATS if form == weights_format)
    server = serving.endpoint.server if serving.endpoint else None
    written = _made_dialect(stages, serving)
    return next(
        (
            form
            for form in offered
            if serves(pool, form, server)
            and (written is None or form in PLAIN or written == dialect_of(pool, form, server))
        ),
        None,
    )


def dialect_of(pool: Pool, form: Format, server: EngineSpec | None) -> Dialect:
    """Return the dialect in which `server`, or an engine class, reads `form` on `pool`."""
    return server.dialect(form, pool) if server else USUAL


def other_dialect(
    stages: Mapping[str, Stage], serving: Stage, pool: Pool
) -> tuple[str, Dialect] | None:
    """Return the dialect of what is made and the one read on `pool`, if only these differ."""
    written, weights_format = _made_dialect(stages, serving), made_format(stages, serving)
    form = next((form for form in FORMATS if form == weights_format), None)
    server = serving.endpoint.server if serving.endpoint else None
    if written is None or form is None or not serves(pool, form, server):
        return None
    wanted = dialect_of(pool, form, server)
    return (written, wanted) if written != wanted else None


def _made_dialect(stages: Mapping[str, Stage], serving: Stage) -> str | None:
    """Return the dialect in which the model is made, where its maker says one."""
    source = serving.inputs.get(serving.endpoint.model) if serving.endpoint else None
    maker = None if source is None else stages.get(source)
    dialect = maker.params.get(DIALECT) if maker else None
    return dialect if isinstance(dialect, str) and dialect != AUTO else None


def left_out(
    stages: Mapping[str, Stage], serving: Stage, pools: Sequence[Pool]
) -> tuple[str, ...]:
    """Return which fallbacks can't serve what is made for the bound pool, the first of `pools`.

    Those on whose chips its engine does not run are among them.
    """
    fixed = made_format(stages, serving) in FORMATS
    return tuple(
        pool.name
        for pool in pools[1:]
        if not runs(serving, pool) or (fixed and not served_format(stages, serving, pool))
    )


def format_problems(stage: Stage) -> Iterator[Problem]:
    """Yield what a stage writes otherwise on some pools: whoever reads it is on any."""
    for name, differs in stage.on.items():
        for parameter in (PARAMETER, DIALECT):
            if parameter in differs.params:
                path = f"pipeline.stages.{stage.name}.on.{name}.params.{parameter}"
                what = "a model is written alike on all pools: its readers may be on any"
                yield Problem(path, what, f"set pipeline.stages.{stage.name}.params.{parameter}")


def recipe_problems(stage: Stage) -> Iterator[Problem]:
    """Yield why a stage can't calibrate the weights that it writes, where it is asked to."""
    recipe, form = stage.params.get(RECIPE), stage.params.get(PARAMETER)
    if not isinstance(recipe, Mapping) or not recipe or form is None:
        return
    path = f"pipeline.stages.{stage.name}"
    if form not in _CALIBRATED:
        able = " or ".join(_CALIBRATED)
        what = f"a recipe calibrates {able}, not {form!r}"
        yield Problem(f"{path}.params.{PARAMETER}", what, f"choose {able}, or no recipe")
    if not recipe.get("python"):
        hint = "name the Python of an environment with llm-compressor, on the pool's nodes"
        yield Problem(f"{path}.params.{RECIPE}.python", "a recipe names no Python", hint)
    if DATA not in stage.inputs:
        hint = "name the stage that makes the data set"
        yield Problem(f"{path}.inputs.{DATA}", "a recipe has no rows to calibrate with", hint)
    if stage.needs.workers > 1:
        what = f"a recipe runs in one worker, not in {stage.needs.workers}"
        yield Problem(f"{path}.needs.workers", what, "set it to 1")


def plain_problems(stages: Mapping[str, Stage], serving: Stage) -> Iterator[Problem]:
    """Yield why the engine of an endpoint does not read its model in the format that is made."""
    server = serving.endpoint.server if serving.endpoint else None
    weights_format, kind = made_format(stages, serving), architecture(stages, serving)
    if (
        server is None
        or weights_format is None
        or weights_format in (*PLAIN, AUTO)
        or kind not in server.plain
    ):
        return
    assert serving.endpoint is not None, "a server is that of an endpoint"  # noqa: S101
    source = serving.inputs[serving.endpoint.model]
    what = f"engine {server.name!r} reads a model of type {kind!r} in no {weights_format!r}"
    yield Problem(f"pipeline.stages.{source}.params.{PARAMETER}", what, "set it to bf16")


def runs(serving: Stage, pool: Pool) -> bool:
    """Return whether the engine of an endpoint runs on the chips of `pool`."""
    server = serving.endpoint.server if serving.endpoint else None
    return server is None or server.on(pool) is not None


def _decided(stage: Stage, readers: Sequence[Stage], fleet: Fleet, bindings: Bindings) -> Stage:
    params = dict(stage.params)
    if params.get(PARAMETER) == AUTO:
        params[PARAMETER] = (_common(readers, fleet, bindings) if readers else _USUAL) or AUTO
    if params.get(DIALECT) == AUTO and params.get(PARAMETER) != AUTO:
        form = next((form for form in FORMATS if form == params.get(PARAMETER)), _USUAL)
        params[DIALECT] = _dialect(form, readers, fleet, bindings)
    return replace(stage, params=params)


def _dialect(form: Format, readers: Sequence[Stage], fleet: Fleet, bindings: Bindings) -> Dialect:
    """Return the dialect that the first reader's bound pool wants; others are checked by it."""
    for reader in readers:
        pool = next((fleet.pools[n] for n in bindings.order(reader) if n in fleet.pools), None)
        if pool is not None:
            return dialect_of(pool, form, reader.endpoint.server if reader.endpoint else None)
    return USUAL


def _common(readers: Sequence[Stage], fleet: Fleet, bindings: Bindings) -> Format | None:
    """Return the first format for all bound pools, and for their fallbacks too where one is."""
    bound = [form for form in _offered(readers) if _all_serve(readers, form, fleet, bindings, 1)]
    whole = (form for form in bound if _all_serve(readers, form, fleet, bindings, None))
    return next(whole, bound[0] if bound else None)


def _offered(readers: Sequence[Stage]) -> Iterator[Format]:
    """Yield the formats that all endpoints offer, in the order of the first."""
    offers = [reader.endpoint.formats for reader in readers if reader.endpoint]
    return (form for form in offers[0] if all(form in others for others in offers))


def _all_serve(
    readers: Sequence[Stage], form: Format, fleet: Fleet, bindings: Bindings, first: int | None
) -> bool:
    """Return whether the pools of all, or the `first` of each, serve `form`.

    Unknown ones do, and those that can't be used at present, or not by the engine.
    """
    return all(
        serves(fleet.pools[name], form, reader.endpoint.server if reader.endpoint else None)
        for reader in readers
        for name in bindings.order(reader)[:first]
        if name in fleet.pools and fleet.pools[name].available and runs(reader, fleet.pools[name])
    )
