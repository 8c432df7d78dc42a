"""Jobs come from the allowed packages; what is wrong with one is said on a line."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.artifact import ShippedCode
from orchestrator.core.errors import JobError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.messages import LogLine
from orchestrator.node.job_import import extend_path, load_job, use_shipped
from tests.worker.conftest import Bench


@pytest.fixture
def travelling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench with a cache of its own, in a process that forgets shipped code afterwards."""
    (bench.folder.parent / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(bench.folder.parent / "temporary"))
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    yield bench
    use_shipped(())


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
        ("{package}.other.job", "no module '{package}.other' on host"),
        ("{package}.jobs.job.more", "no module '{package}.jobs.job' on host"),
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


def test_a_module_that_is_not_there_is_told_with_the_host_and_where_it_was_looked_for(
    travelling: Bench,
) -> None:
    bench = travelling
    job = f"job '{bench.package}.jobs.job': no module '{bench.package}' on host"
    then = f", then on the path of {sys.executable!r}; add its folder to jobs.code, or install it"
    there = f"{job} {platform.node()!r}; looked in "
    failure = bench.failure("def job(ctx): pass", code=())
    expected = f"{there}no folder of jobs.code (nothing was shipped){then} there"
    assert failure.evidence == expected

    (bench.folder / "other").mkdir()
    failure = bench.failure("def job(ctx): pass", shipped=ship(bench, bench.folder / "other"))
    assert failure.evidence.startswith(there), "it is not in what was shipped"
    assert failure.evidence.endswith(f"/000' of the code that was shipped{then} there")


def ship(bench: Bench, folder: Path, name: str = "code/one") -> ShippedCode:
    """Have the files in a folder travel, as one of `jobs.code`, with one more beside them."""
    files = [(f"000/{path.relative_to(folder)}", path) for path in sorted(folder.rglob("*.*"))]
    (folder.parent / "note.md").touch()
    marker = ("000/note.md", folder.parent / "note.md")
    return ShippedCode(bench.store.archive(name, [*files, marker]))


def test_shipped_code_is_imported_from_where_it_was_unpacked_and_not_from_its_folder(
    travelling: Bench,
) -> None:
    bench = travelling
    bench.write("")
    (bench.folder / bench.package / "prompt.yaml").write_text("be: kind")
    (bench.folder / "beside_the_package.py").write_text("X = 1")
    source = """
        import os, subprocess, sys, multiprocessing, pathlib

        def child(queue):
            import beside_the_package
            queue.put(beside_the_package.__file__)

        def job(ctx):
            ctx.log(__file__)
            ctx.log(pathlib.Path(__file__).with_name("prompt.yaml").read_text())
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            ctx.log(queue.get())
            process.join()
            words = "import beside_the_package as b; print(b.__file__)"
            ctx.log(subprocess.check_output([sys.executable, "-P", "-c", words], text=True))
            ctx.log(os.environ["PYTHONPATH"])
        """
    bench.write(source)
    code = ship(bench, bench.folder, "code/two")
    (bench.folder / bench.package / "jobs.py").write_text("raise SystemExit('the folder itself')")
    request = bench.request(shipped=code)
    said = [m for batch in bench.stream(request) for m in batch]
    file, prompt, spawned, started, path = [m.text for m in said if isinstance(m, LogLine)]
    root = bench.store.unpack(code.archive) / "000"
    assert file == str(root / bench.package / "jobs.py")
    assert prompt == "be: kind"
    assert spawned == started == str(root / "beside_the_package.py")
    assert path == f"{root}:/theirs"


def test_a_process_that_runs_other_code_forgets_the_code_that_it_ran_before(
    travelling: Bench,
) -> None:
    bench = travelling
    said = []
    for version in ("one", "two", "one"):
        bench.write(f"import beside_it\ndef job(ctx): ctx.log('{version} ' + beside_it.WORD)")
        (bench.folder / "beside_it.py").write_text(f"WORD = '{version}'")
        shipped = ship(bench, bench.folder, f"code/{version}")
        messages = [m for batch in bench.stream(bench.request(shipped=shipped)) for m in batch]
        said += [m.text for m in messages if isinstance(m, LogLine)]
    assert said == ["one one", "two two", "one one"]
    roots = [path for path in sys.path if path.endswith("/000")]
    assert len(roots) == 1, "what is not run any more is on no path"


def test_a_failure_of_shipped_code_names_its_files_as_their_folder_does(
    travelling: Bench,
) -> None:
    bench = travelling
    bench.write("def job(ctx):\n    raise ValueError(__file__)")
    failure = bench.failure_of(bench.request(shipped=ship(bench, bench.folder)))
    assert f'File "{bench.package}/jobs.py", line 2, in job' in failure.detail
    assert failure.evidence == f"ValueError: {bench.package}/jobs.py"


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
