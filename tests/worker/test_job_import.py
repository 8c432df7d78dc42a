"""Jobs come from the allowed packages; what is wrong with one is said on a line."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.core.errors import JobError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.worker.job_import import extend_path, load_job
from tests.worker.conftest import Bench


@pytest.mark.parametrize("name", ["os.system", "jobs", "jobsx.run", ".jobs.run", ""])
def test_a_job_outside_of_the_allowed_packages_is_refused(name: str) -> None:
    with pytest.raises(JobError, match=rf"job '{name}' is in no allowed package \(jobs, mine\)"):
        load_job(name, ("jobs", "mine"))


def test_without_a_package_no_job_is_allowed() -> None:
    with pytest.raises(JobError, match=r"in no allowed package \(none\)"):
        load_job("jobs.run", ())


@pytest.mark.parametrize(
    ("job", "line"),
    [
        ("{package}.jobs.nothing", "is no function of '{package}.jobs': there is none; check"),
        ("{package}.jobs.NUMBER", "is no function of '{package}.jobs': it is a int; check"),
        ("{package}.other.job", "no module '{package}.other'; add its folder to jobs.code"),
        ("{package}.jobs.job.more", "no module '{package}.jobs.job'; add"),
        ("{package}..job", "is no dotted name"),
        ("{package}.jobs.", "is no dotted name"),
    ],
)
def test_a_job_that_is_not_there_is_refused(bench: Bench, job: str, line: str) -> None:
    job, line = (text.format(package=bench.package) for text in (job, line))
    failure = bench.failure("NUMBER = 3\ndef job(ctx): pass", job=job)
    assert failure.kind is FailureKind.USER_CODE
    assert failure.evidence.startswith(f"job '{job}'")
    assert line in failure.evidence


def test_a_folder_that_is_not_listed_is_not_searched(bench: Bench) -> None:
    failure = bench.failure("def job(ctx): pass", code=())
    assert f"no module '{bench.package}'; add its folder to jobs.code" in failure.evidence


def test_a_job_that_imports_what_is_not_there_shows_where(bench: Bench) -> None:
    failure = bench.failure("\nimport no_such_thing\ndef job(ctx): pass")
    assert failure.evidence == "ModuleNotFoundError: No module named 'no_such_thing'"
    assert failure.detail.splitlines()[1].endswith('jobs.py", line 2, in <module>')


def test_a_job_that_breaks_while_it_is_imported_shows_where(bench: Bench) -> None:
    failure = bench.failure("raise SystemExit('no licence')")
    assert (failure.kind, failure.evidence) == (FailureKind.USER_CODE, "SystemExit: no licence")
    assert len(failure.detail.splitlines()) == 4


def test_a_job_with_a_syntax_error_shows_where(bench: Bench) -> None:
    failure = bench.failure("def job(ctx:\n")
    assert failure.evidence.startswith("SyntaxError: ")
    assert 'jobs.py", line 1' in failure.detail
    assert "importlib" not in failure.detail


def test_folders_are_searched_first_to_last_and_added_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["there"])
    extend_path(("a", "b"))
    extend_path(("b", "there"))
    assert sys.path == ["a", "b", "there"]


def test_a_module_that_was_written_after_its_folder_was_read_is_found(tmp_path: Path) -> None:
    package = tmp_path / "laterjobs"
    package.mkdir()
    (package / "__init__.py").touch()
    extend_path([str(tmp_path)])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("laterjobs.train")
    before = package.stat()
    (package / "train.py").write_text("def job(ctx): ...")
    os.utime(package, ns=(before.st_atime_ns, before.st_mtime_ns))  # within one tick of the clock
    extend_path([str(tmp_path)])
    assert callable(load_job("laterjobs.train.job", ["laterjobs"]))


def test_threads_extend_the_path_at_once(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def extend() -> None:
        try:
            for number in range(300):
                folder = str(tmp_path / str(number % 7))
                sys.path_importer_cache[folder] = None
                extend_path([folder])
        except Exception as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    interval, path = sys.getswitchinterval(), sys.path.copy()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=extend) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        sys.path[:] = path
    assert errors == []
