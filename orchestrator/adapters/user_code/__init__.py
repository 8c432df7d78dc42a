"""Jobs and engines by name, looked up in their sources: nothing of them is imported here.

A job is a dotted name under an allow-list of packages. Its module is found on the folders of
`jobs.code` and on the import path, its function in the module's syntax tree. So a plan can say
what is wrong with a job, or that a finished stage may be reused, before anything of it runs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

from orchestrator.adapters.user_code.code_digest import Importable
from orchestrator.adapters.user_code.code_files import CodeFiles
from orchestrator.adapters.user_code.job_forecasts import forecasts
from orchestrator.adapters.user_code.lookup import Definition, LookupProblem, look_up
from orchestrator.adapters.user_code.shipping import Shipment, weigh
from orchestrator.adapters.user_code.signature import (
    CallSignature,
    of_engine,
    of_job,
    wrong_parameters,
)
from orchestrator.core.artifact_paths import PACKAGES
from orchestrator.core.errors import Problem, shown
from orchestrator.core.settings import JobSettings
from orchestrator.core.spec.command_stages import params_path
from orchestrator.core.spec.stages import Json, Pipeline, Stage

__all__ = [
    "PACKAGES",
    "CodeFiles",
    "Importable",
    "Shipment",
    "check",
    "default_of",
    "forecasts",
    "weigh",
]

Reader: TypeAlias = Callable[[str, Definition | None], CallSignature]


def check(pipeline: Pipeline, jobs: JobSettings) -> tuple[Problem, ...]:
    """Return what is wrong with the jobs and engines of `pipeline`, and with their parameters."""
    lost = tuple(
        Problem(f"jobs.code.{index}", f"{shown(folder)} is not a folder", "mend jobs.code")
        for index, folder in enumerate(jobs.code)
        if not Path(folder).is_dir()
    )
    read = cache(partial(_signature, jobs=jobs))  # many stages may have one job
    return (*lost, *(problem for stage in pipeline.stages for problem in _stage(stage, read)))


def default_of(job: str, parameter: str, jobs: JobSettings) -> Json:
    """Return what a job takes where no config gives a parameter; `None` where none is written."""
    try:
        definition = look_up(job, jobs)
    except LookupProblem:
        return None
    if not isinstance(definition, ast.FunctionDef):
        return None
    args = definition.args
    written = dict(zip((arg.arg for arg in args.kwonlyargs), args.kw_defaults, strict=True))
    default = written.get(parameter)
    value: Json = default.value if isinstance(default, ast.Constant) else None
    return value


def _stage(
    stage: Stage, read: Callable[[str, Reader], CallSignature | Problem]
) -> Iterator[Problem]:
    path = f"pipeline.stages.{stage.name}"
    if stage.job is not None:
        signature = read(stage.job, of_job)
        paths = (f"{path}.job", params_path(stage))
        yield from _wrong(signature, stage.job, paths, stage.params)
        for name, differs in stage.on.items() if not isinstance(signature, Problem) else ():
            if differs.params:
                paths = (f"{path}.job", params_path(stage, name))
                yield from _wrong(signature, stage.job, paths, stage.on_pool(name).params)
    if stage.endpoint is not None and stage.endpoint.server is None:
        engine, options = stage.endpoint.engine, stage.endpoint.engine_options
        where = f"{path}.endpoint"
        signature = read(engine, of_engine)
        yield from _wrong(
            signature, engine, (f"{where}.engine", f"{where}.engine_options"), options
        )


def _signature(dotted: str, reader: Reader, *, jobs: JobSettings) -> CallSignature | Problem:
    """Return the parameters of a job or an engine, or a problem without its place."""
    try:
        return reader(dotted, look_up(dotted, jobs))
    except LookupProblem as problem:
        return Problem("", problem.what, problem.hint)


def _wrong(
    signature: CallSignature | Problem,
    dotted: str,
    paths: tuple[str, str],
    params: Mapping[str, Json],
) -> Iterator[Problem]:
    if isinstance(signature, Problem):
        yield replace(signature, path=paths[0])
    else:
        yield from wrong_parameters(signature, dotted, paths[1], params)
