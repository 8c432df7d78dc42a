"""Pipelines and fleets that were built in Python, as a config would have them written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from orchestrator.adapters.hydra_config.document import FleetDocument, PipelineDocument
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.stages import Json, Pipeline


def pipeline(built: Pipeline) -> Mapping[str, Json]:
    """Return the section `pipeline`; what `parse` fills in is left to it."""
    stages = {stage.name: stage for stage in built.stages}
    written = _plain(PipelineDocument(name=built.name, stages=stages))
    for stage in written["stages"].values():
        if stage["endpoint"]:
            stage["endpoint"].pop("server")
    return written


def fleet(built: Fleet) -> Mapping[str, Json]:
    """Return the section `fleet`."""
    return _plain(FleetDocument(name=built.name, pools=built.pools))


def _plain(document: PipelineDocument | FleetDocument) -> dict[str, Any]:
    """Return it as JSON has it; whether its values are of their types is for `parse` to say."""
    return dict(_adapter().dump_python(document, mode="json", warnings=False))


@cache
def _adapter() -> TypeAdapter[PipelineDocument | FleetDocument]:
    return TypeAdapter(PipelineDocument | FleetDocument)
