"""In which format a model is written, so that the pools that shall serve it can.

The stage that makes the model of an endpoint names the format by its parameter `format`; `auto`
there means the first of the endpoint's formats that its pools serve. The bound pool decides: a
fallback that can't serve what is made for it is left out, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import get_args

from orchestrator.core.engines import EngineSpec
from orchestrator.core.hardware import Fleet, Format, Pool
from orchestrator.core.spec import Bindings, Pipeline, Stage

PARAMETER = "format"
AUTO = "auto"
FORMATS: tuple[Format, ...] = get_args(Format)
_USUAL: Format = "bf16"  # where nobody serves what is made

# Who reads the first reads the others: scales of `fp8_ue8m0` are float32 as those of `fp8` are,
# and powers of two besides.
_COVERS: Mapping[Format, frozenset[Format]] = MappingProxyType({"fp8": frozenset({"fp8_ue8m0"})})


def serves(pool: Pool, form: Format, server: EngineSpec | None = None) -> bool:
    """Return whether the chips of `pool` can serve `form`, and `server` can read it there."""
    able = pool.accelerator.formats
    chips = form in able or any(form in _COVERS.get(one, ()) for one in able)
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
    said = maker.params.get(PARAMETER) if maker else None
    return said if isinstance(said, str) and said in (*FORMATS, AUTO) else None


def served_format(stages: Mapping[str, Stage], serving: Stage, pool: Pool) -> Format | None:
    """Return the format in which `pool` serves what `serving` serves, `None` where it can't."""
    made = made_format(stages, serving)
    offered = serving.endpoint.formats if serving.endpoint else ()
    if made is not None:
        offered = tuple(form for form in FORMATS if form == made)
    server = serving.endpoint.server if serving.endpoint else None
    return next((form for form in offered if serves(pool, form, server)), None)


def left_out(
    stages: Mapping[str, Stage], serving: Stage, pools: Sequence[Pool]
) -> tuple[str, ...]:
    """Return which fallbacks can't serve what is made for the bound pool, the first of `pools`.

    Those on whose chips its engine does not run are among them.
    """
    made = made_format(stages, serving) in FORMATS
    return tuple(
        one.name
        for one in pools[1:]
        if not runs(serving, one) or (made and not served_format(stages, serving, one))
    )


def runs(serving: Stage, pool: Pool) -> bool:
    """Return whether the engine of an endpoint runs on the chips of `pool`."""
    server = serving.endpoint.server if serving.endpoint else None
    return server is None or server.on(pool) is not None


def _decided(stage: Stage, readers: Sequence[Stage], fleet: Fleet, bindings: Bindings) -> Stage:
    if stage.params.get(PARAMETER) != AUTO:
        return stage
    form = _common(readers, fleet, bindings) if readers else _USUAL
    return replace(stage, params={**stage.params, PARAMETER: form}) if form else stage


def _common(readers: Sequence[Stage], fleet: Fleet, bindings: Bindings) -> Format | None:
    """Return the first format for all bound pools, and for their fallbacks too where one is."""
    bound = [form for form in _offered(readers) if _all_serve(readers, form, fleet, bindings, 1)]
    whole = (form for form in bound if _all_serve(readers, form, fleet, bindings, None))
    return next(whole, bound[0] if bound else None)


def _offered(readers: Sequence[Stage]) -> Iterator[Format]:
    """Yield the formats that all endpoints offer, in the order of the first."""
    offers = [one.endpoint.formats for one in readers if one.endpoint]
    return (form for form in offers[0] if all(form in others for others in offers))


def _all_serve(
    readers: Sequence[Stage], form: Format, fleet: Fleet, bindings: Bindings, first: int | None
) -> bool:
    """Return whether the pools of all, or the `first` of each, serve `form`.

    Unknown ones do, and those that can't be used at present, or not by the engine.
    """
    return all(
        serves(fleet.pools[name], form, one.endpoint.server if one.endpoint else None)
        for one in readers
        for name in bindings.order(one.role)[:first]
        if name in fleet.pools and fleet.pools[name].available and runs(one, fleet.pools[name])
    )
