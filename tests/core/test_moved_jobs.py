"""A job that has moved is known by the names that it had."""

from __future__ import annotations

import pytest

from orchestrator.adapters.user_code.lookup import LookupProblem, look_up
from orchestrator.core.settings import JobSettings
from orchestrator.core.spec.moved_jobs import MOVED_JOBS, job_of_today


@pytest.mark.parametrize(("before", "today"), MOVED_JOBS.items())
def test_a_job_that_moved_is_where_its_name_of_today_says(before: str, today: str) -> None:
    with pytest.raises(LookupProblem):
        look_up(before, JobSettings())
    assert look_up(today, JobSettings()) is not None
    assert job_of_today(before) == today


@pytest.mark.parametrize("job", ["jobs.noop.noop", "mine.jobs.evaluation.dataset.evaluate", "x"])
def test_any_other_job_keeps_its_name(job: str) -> None:
    assert job_of_today(job) == job
