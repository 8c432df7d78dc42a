"""A result is reused where nothing that its job can import has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters import user_code
from orchestrator.adapters.user_code import code_files
from orchestrator.core.errors import JobError
from orchestrator.core.spec.stages import Json
from tests.build import stage

Digest = Callable[..., str]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a job in `acme`, and a package beside it."""
    folder = tmp_path / "code"
    (folder / "acme" / "prompts").mkdir(parents=True)
    (folder / "acme" / "__init__.py").touch()
    (folder / "acme" / "work.py").write_text("def learn(ctx):\n    from beside import help\n")
    (folder / "acme" / "prompts" / "system.yaml").write_text("be: kind\n")
    (folder / "beside").mkdir()
    (folder / "beside" / "__init__.py").write_text("def help(): return 1\n")
    return folder


@pytest.fixture
def digest(code: Path, tmp_path: Path) -> Digest:
    """What the next command says of a job."""

    def ask(job: str = "acme.work.learn", **params: Json) -> str:
        kept, apart = tmp_path / "code.json", [code / "home"]
        new = user_code.Importable((str(code),), kept=kept, apart=apart)
        return new.digest(stage("s", job=job, params=params))

    return ask


@pytest.mark.parametrize(
    "changed",
    [
        "acme/work.py",
        "acme/deep/new.py",
        "acme/prompts/system.yaml",
        "beside/__init__.py",
        "beside/table.csv",
        "config.yaml",
        "top.py",
    ],
)
def test_whatever_changes_beside_a_job_changes_its_digest(
    code: Path, digest: Digest, changed: str
) -> None:
    before = digest()
    assert digest() == before
    (code / changed).parent.mkdir(exist_ok=True)
    (code / changed).write_text("x = 2\n")
    assert digest() != before


@pytest.mark.parametrize(
    "changed",
    [
        ".git/HEAD",
        "acme/__pycache__/work.cpython-311.pyc",
        "venv/lib/site.py",
        "home/events.db",
        "ignored/data.bin",
        ".orchestrator/events.db",
        "acme.egg-info/PKG-INFO",
    ],
)
def test_what_is_no_code_does_not_change_a_digest(
    code: Path, digest: Digest, changed: str
) -> None:
    (code / "venv").mkdir()
    (code / "venv" / "pyvenv.cfg").touch()
    (code / ".gitignore").write_text("ignored/\n")
    before = digest()
    (code / changed).parent.mkdir(parents=True, exist_ok=True)
    (code / changed).write_text("something else")
    assert digest() == before


def test_code_that_git_ignores_counts_for_it_can_be_imported_here(
    code: Path, digest: Digest
) -> None:
    (code / ".gitignore").write_text("_version.py\n")
    before = digest()
    (code / "acme" / "_version.py").write_text("version = 2\n")
    assert digest() != before


def test_a_file_that_moves_is_a_change(code: Path, digest: Digest) -> None:
    before = digest()
    (code / "acme" / "prompts" / "system.yaml").rename(code / "acme" / "prompts" / "user.yaml")
    assert digest() != before


def test_a_job_that_can_not_come_to_a_folder_does_not_depend_on_it(
    code: Path, digest: Digest
) -> None:
    before = digest("jobs.noop.noop")
    (code / "acme" / "work.py").write_text("def learn(ctx): ...\n")
    assert digest("jobs.noop.noop") == before


def test_what_a_parameter_names_is_imported_too(code: Path, digest: Digest) -> None:
    named: Json = {"engines": ["acme.work.Engine"]}
    before = digest("jobs.noop.noop", options=named)
    (code / "acme" / "work.py").write_text("class Engine: ...\n")
    assert digest("jobs.noop.noop", options=named) != before


def test_a_package_that_is_run_from_its_sources_counts_as_the_job_that_imports_it(
    code: Path, tmp_path: Path, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / "elsewhere" / "helping"
    far.mkdir(parents=True)
    (far / "__init__.py").write_text("import further\n")
    (far.parent / "further.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(far.parent))
    (code / "acme" / "work.py").write_text("import helping.inner as inner, json\n")
    before = digest()
    (far / "table.json").write_text("[]")
    second = digest()
    (far.parent / "further.py").write_text("x = 2\n")
    assert len({before, second, digest()}) == 3


def test_what_is_installed_counts_by_its_version(
    code: Path, tmp_path: Path, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "scales").mkdir(parents=True)
    (site / "scales" / "__init__.py").touch()
    about = site / "scales-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: scales\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    (code / "acme" / "work.py").write_text("import scales, yaml\n")
    before = digest()
    (site / "scales" / "__init__.py").write_text("patched = True\n")
    assert digest() == before
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: scales\nVersion: 1.1\n")
    os.utime(site)
    assert digest() != before


def test_a_package_of_jobs_counts_whole_even_where_it_is_installed(
    tmp_path: Path, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "work"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    before = digest("work.learn")
    (package / "rubric.yaml").write_text("strict: true\n")
    assert digest("work.learn") != before


def test_a_single_module_has_a_digest_and_a_missing_package_has_none(
    code: Path, digest: Digest
) -> None:
    (code / "solo.py").write_text("def go(ctx): ...\n")
    assert len(digest("solo.go")) == 64
    with pytest.raises(JobError, match="there is no package 'nowhere'"):
        digest("nowhere.go")


def test_links_in_a_circle_and_files_that_can_not_be_read_do_no_harm(
    code: Path, digest: Digest
) -> None:
    (code / "acme" / "again").symlink_to(code)
    (code / "nowhere").symlink_to(code / "not there")
    os.mkfifo(code / "pipe")
    assert digest() == digest()


def test_what_did_not_change_is_not_read_again(tmp_path: Path, code: Path) -> None:
    kept, settled = tmp_path / "code.json", 10.0
    first = code_files.CodeFiles(kept)
    digest, imports = first.digest(code)
    first.keep()
    assert code_files.CodeFiles(kept).digest(code) == (digest, imports)
    later = kept.stat().st_mtime + settled
    os.utime(kept, (later, later))
    assert code_files.CodeFiles(kept).digest(code) == (digest, imports)
    kept.write_text(
        kept.read_text("utf-8").replace(first.of(code / "acme" / "work.py")[0], "0" * 64)
    )
    os.utime(kept, (later, later))
    assert code_files.CodeFiles(kept).digest(code)[0] != digest, "what is remembered was believed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"FILE": 1}', '{"FILE": [1, 2]}'])
def test_a_torn_memory_of_what_was_read_is_not_believed(
    tmp_path: Path, code: Path, digest: Digest, text: str
) -> None:
    before = digest()
    (tmp_path / "code.json").write_text(text.replace("FILE", str(code / "acme" / "work.py")))
    assert digest() == before


def test_a_home_without_room_is_no_reason_to_fail(tmp_path: Path, digest: Digest) -> None:
    before = digest()
    (tmp_path / "code.json").unlink()
    (tmp_path / "code.json").mkdir()
    assert digest() == before
