"""Jobs by name, looked up in their sources: nothing of a job is imported here.

A job is a dotted name under an allow-list of packages. Its module is found on the folders of
`jobs.code` and on the import path, its function in the module's syntax tree. So a plan can say
what is wrong with a job, or that a finished stage may be reused, before anything of it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.adapters.job_source.importable import Importable
from orchestrator.adapters.job_source.lookup import LookupProblem, look_up
from orchestrator.adapters.job_source.signature import of_engine, of_job, wrong_parameters
from orchestrator.core.errors import Problem
from orchestrator.core.settings import JobSettings
from orchestrator.core.spec import Json, Pipeline, Stage

__all__ = ["Importable", "check"]


def check(pipeline: Pipeline, jobs: JobSettings) -> tuple[Problem, ...]:
    """Return what is wrong with the jobs and engines of `pipeline`, and with their parameters."""
    lost = tuple(
        Problem(f"jobs.code.{index}", f"{folder!r} is not a folder", "mend jobs.code")
        for index, folder in enumerate(jobs.code)
        if not Path(folder).is_dir()
    )
    return (*lost, *(problem for stage in pipeline.stages for problem in _stage(stage, jobs)))


def _stage(stage: Stage, jobs: JobSettings) -> Iterator[Problem]:
    path = f"pipeline.stages.{stage.name}"
    if stage.job is not None:
        yield from _named(stage.job, f"{path}.job", f"{path}.params", stage.params, jobs)
    if stage.endpoint is not None:
        options = stage.endpoint.engine_options
        where = f"{path}.endpoint"
        yield from _named(
            stage.endpoint.engine, f"{where}.engine", f"{where}.engine_options", options, jobs
        )


def _named(
    dotted: str, path: str, params_path: str, params: Mapping[str, Json], jobs: JobSettings
) -> Iterator[Problem]:
    try:
        definition = look_up(dotted, jobs)
        read = of_engine if path.endswith(".engine") else of_job
        signature = read(dotted, definition)
    except LookupProblem as problem:
        yield Problem(path, problem.what, problem.hint)
        return
    yield from wrong_parameters(signature, dotted, params_path, params)
