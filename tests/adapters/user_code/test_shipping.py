"""What travels with a run: folders of code whole, packages that are run from their sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.user_code import CodeFiles, Shipment, weigh
from orchestrator.core.settings import JobSettings


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder of code with a package, a module beside it, a prompt, data and a link outward."""
    folder = tmp_path / "code"
    (folder / "acme").mkdir(parents=True)
    (folder / "acme" / "__init__.py").touch()
    (folder / "acme" / "prompt.yaml").write_text("be: kind\n")
    (folder / "helper.py").write_text("X = 1\n")
    (folder / "data").mkdir()
    (folder / "data" / "table.bin").write_bytes(b"1" * 1000)
    (folder / ".gitignore").write_text("data/\n")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "words.txt").write_text("far")
    (folder / "linked").symlink_to(tmp_path / "far")
    (folder / "nowhere").symlink_to(tmp_path / "not there")
    return folder


def shipment(*packages: str, code: Path | None = None) -> Shipment:
    folders = () if code is None else (str(code),)
    return Shipment(JobSettings(packages=packages, code=folders), CodeFiles())


def test_all_files_of_a_folder_travel_but_what_git_ignores(code: Path) -> None:
    found = dict(shipment("acme", code=code).files())
    assert list(found) == [
        "000/.gitignore",
        "000/acme/__init__.py",
        "000/acme/prompt.yaml",
        "000/helper.py",
        "000/linked/words.txt",
    ]
    assert found["000/linked/words.txt"].read_text() == "far", "a link travels as what it shows"


def test_the_key_is_that_of_the_files_alone(code: Path) -> None:
    before = shipment("acme", code=code).key()
    (code / "data" / "table.bin").write_bytes(b"2")
    (code / "acme" / "__pycache__").mkdir()
    assert shipment("acme", code=code).key() == before
    (code / "acme" / "prompt.yaml").chmod(0o755)
    runs = shipment("acme", code=code).key()
    (code / "linked" / "words.txt").write_text("near")
    assert len({before, runs, shipment("acme", code=code).key()}) == 3


def test_a_package_that_is_run_from_its_sources_travels_and_an_installed_one_does_not(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src" / "mine").mkdir(parents=True)
    (tmp_path / "src" / "mine" / "__init__.py").touch()
    (tmp_path / "src" / "beside.py").touch()
    (tmp_path / "src" / "solo.py").touch()
    (tmp_path / "site-packages" / "theirs").mkdir(parents=True)
    (tmp_path / "site-packages" / "theirs" / "__init__.py").touch()
    for folder in ("src", "site-packages"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    found = shipment("mine.jobs", "solo", "theirs", "json", "no_such", "acme", code=code)
    assert found.packages == ("acme", "mine", "solo")
    beside = [name for name, _ in found.files() if not name.startswith("000/")]
    assert beside == ["packages/mine/__init__.py", "packages/solo.py"]


def test_what_is_installed_alone_has_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site-packages" / "theirs").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    assert shipment("theirs").key() == ""


def test_a_large_file_is_named_and_too_much_is_refused_with_what_makes_it_so(code: Path) -> None:
    with (code / "weights.bin").open("wb") as stream:
        stream.truncate(300_000_000)
    problems, notes = weigh(shipment("acme", code=code), 500)
    assert problems == []
    named = f"'{code}/weights.bin' (300 MB) travels with the code of each run; "
    assert notes == [f"{named}data is better named in .gitignore"]
    problems, _ = weigh(shipment("acme", code=code), 200)
    too_much = "jobs.code: more than 200 MB of files would travel with each run"
    why = f"'{code}/weights.bin' has 300 MB; name data in .gitignore, or raise jobs.most_mb"
    assert [str(problem) for problem in problems] == [f"{too_much}: {why}"]


def test_an_ignored_module_that_is_imported_is_named_and_one_that_is_not_is_not(
    code: Path,
) -> None:
    (code / ".gitignore").write_text("_version.py\nlocal_secrets.py\n*.so\n")
    for name in ("acme/_version.py", "local_secrets.py", "acme/fast.cpython-311.so"):
        (code / name).write_text("x = 1\n")
    (code / "acme" / "__init__.py").write_text(
        "from ._version import x\nfrom acme import (\n fast)\n"
    )
    (code / "broken.py").write_text("import local_secrets, (\n")
    problems, notes = weigh(shipment("acme", code=code), 500)
    assert problems == []
    hint = "write '!_version.py' into .orchestratorignore to have it travel"
    assert [note.split(" ")[0] for note in notes] == [
        f"'{code}/acme/_version.py'",
        f"'{code}/acme/fast.cpython-311.so'",
    ]
    assert notes[0].endswith(f"is imported and stays here, since git ignores it; {hint}")
    (code / ".orchestratorignore").write_text("!_version.py\n!*.so\n")
    assert weigh(shipment("acme", code=code), 500) == ([], [])
    assert "000/acme/_version.py" in dict(shipment("acme", code=code).files())


def test_many_small_files_are_too_much_too(code: Path) -> None:
    (code / "many.txt").write_bytes(b"1" * 2_000_000)
    problems, _ = weigh(shipment("acme", code=code), 1)
    assert f"the folder of '{code}/many.txt' is among them" in str(problems[0])


def test_what_can_not_be_read_is_refused_before_anything_runs(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "helper.py")
    problems, _ = weigh(shipment("acme", code=code), 500)
    line = f"jobs.code: '{code}/helper.py' can't be read; mend its permissions, or name it in"
    assert [str(problem) for problem in problems] == [f"{line} .gitignore"]
