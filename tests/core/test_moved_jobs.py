"""A job that has moved is known by the name that it had."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.spec.moved_jobs import MOVED_JOBS, job_of_today

ROOT = Path(__file__).parents[2]


def exists(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


@pytest.mark.parametrize(("before", "today"), MOVED_JOBS.items())
def test_a_job_that_moved_is_where_its_module_is_today(before: str, today: str) -> None:
    assert (exists(before), exists(today)) == (False, True)
    assert job_of_today(f"{before}.run") == f"{today}.run"


@pytest.mark.parametrize("job", ["jobs.noop.noop", "mine.jobs.evaluation.dataset.evaluate", "x"])
def test_any_other_job_keeps_its_name(job: str) -> None:
    assert job_of_today(job) == job
