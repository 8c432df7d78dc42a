"""Asks jobs whether an attempt can do what its parameters say, and what it will take.

A job NAME whose module has `forecast_NAME` is asked where its stage gives `parallel`: what that
splits is for the job to know. Without it a job is asked where its parameters may name a model that
outgrows a chip of known memory. It is asked in a process of its own, once for all stages, as it
may import torch, and what it says is kept; of a stage where that fails nothing is known, which is
told and stops nobody.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.adapters.user_code import forecast_child
from orchestrator.adapters.user_code.code_digest import Importable
from orchestrator.adapters.user_code.forecast_cache import Answer, ForecastCache, key_of
from orchestrator.adapters.user_code.lookup import LookupProblem, look_up
from orchestrator.core.errors import JobError, Problem
from orchestrator.core.settings import JobSettings
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.stages import Stage

PARAMETER = "parallel"
SECONDS = 120.0
_CPU = "cpu"
_WIDE = 1024  # a model with no number as large fits any chip: an answer takes seconds


@dataclass(frozen=True, slots=True)
class _JobQuestion:
    """What a job is asked, of a stage on a pool."""

    stage: str
    pool: str
    function: str
    arguments: dict[str, Any]
    key: str  # of its answer, empty where that is not kept

    @property
    def text(self) -> dict[str, Any]:
        """What the job is given."""
        return {"function": self.function, "arguments": self.arguments}


def forecasts(
    plan: Plan, jobs: JobSettings, importable: Importable, kept: Path | None = None
) -> tuple[Sequence[Problem], Sequence[str]]:
    """Return why stages can't run on their pools, and what they will take there, in lines.

    `kept` is the file in which answers stand from one command to the next, for as long as what
    is `importable` is the same.
    """
    questions = [
        question
        for planned in plan.stages
        for pool in planned.pools
        for question in _questions(planned.stage, pool, plan, jobs, importable)
    ]
    if not questions:
        return (), ()
    answers = _answers(questions, jobs, ForecastCache(kept))
    if isinstance(answers, str):
        stages = ", ".join(dict.fromkeys(repr(question.stage) for question in questions))
        return (), [_unknown(stages, answers)]
    problems: list[Problem] = []
    notes: list[str] = []
    for question, answer in zip(questions, answers, strict=True):
        where = f"stage {question.stage!r} on {question.pool!r}"
        if "refused" in answer:
            path = f"pipeline.stages.{question.stage}.params.{PARAMETER}"
            problems.append(Problem(path, f"on {question.pool!r}: {answer['refused']}"))
        notes += [f"{where}: {line}" for line in answer.get("lines", ())]
        if "unknown" in answer:
            notes.append(_unknown(repr(question.stage), answer["unknown"]))
    return problems, tuple(dict.fromkeys(notes))


def _unknown(stages: str, why: str) -> str:
    return f"what {stages} will take is not known here: {why}"


def _answers(
    questions: Sequence[_JobQuestion], jobs: JobSettings, cache: ForecastCache
) -> list[Answer] | str:
    """Return the answers, those that are kept without asking, or why there are none."""
    cached = [cache.find(question.key) for question in questions]
    new = [q for q, answer in zip(questions, cached, strict=True) if answer is None]
    answers = _ask(new, jobs) if new else []
    if isinstance(answers, str):
        return answers
    pairs = zip(new, answers, strict=True)
    cache.add({q.key: answer for q, answer in pairs if q.key and "unknown" not in answer})
    fresh = iter(answers)
    return [answer if answer is not None else next(fresh) for answer in cached]


def _questions(
    stage: Stage, pool: str, plan: Plan, jobs: JobSettings, importable: Importable
) -> Iterator[_JobQuestion]:
    here, chip = stage.on_pool(pool), plan.pools[pool].accelerator
    if stage.job is None or not _is_worth_asking(here.params, chip.memory_gb):
        return
    module, _, name = stage.job.rpartition(".")
    function = f"{module}.forecast_{name}"
    try:
        look_up(function, jobs)
    except LookupProblem:  # it has none
        return
    computes = "bf16" in chip.formats and chip.device != _CPU and not plan.pools[pool].emulated
    for workers in dict.fromkeys((here.needs.workers, here.needs.least)):
        arguments = {
            "params": here.params,
            "inputs": sorted(stage.inputs),
            "workers": workers,
            "memory_gb": chip.memory_gb,
            "bf16": computes,
        }
        question = _JobQuestion(stage.name, pool, function, arguments, key="")
        try:
            key = key_of(question.text, importable.digest(stage))
        except JobError:
            yield question
        else:
            yield replace(question, key=key)


def _is_worth_asking(params: Mapping[str, Any], memory_gb: float | None) -> bool:
    """Whether what a job does is split, or may be too large for a chip, by its parameters alone.

    A model of a published architecture is as wide as that, where no field says otherwise.
    """
    if params.get(PARAMETER):
        return True
    fields = params.get("model") or {}
    if memory_gb is None or not isinstance(fields, Mapping):
        return False
    if params.get("architecture") and "hidden_size" not in fields:
        return True
    return any(isinstance(value, int | float) and value >= _WIDE for value in fields.values())


def _ask(questions: Sequence[_JobQuestion], jobs: JobSettings) -> list[Answer] | str:
    """Return the answers, or why there are none."""
    asked = [each.text for each in questions]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", forecast_child.__name__],
            input=json.dumps({"code": list(jobs.code), "asked": asked}, default=dict),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS:.0f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return lines[-1]
    answers: list[Answer] = json.loads(done.stdout.splitlines()[-1])
    return answers
