"""Code as an artifact: equal files are equal archives; each machine checks each file."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore, archives
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.errors import ArtifactError, DamagedError

MEMORY = "memory://archives"


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FsspecArtifactStore:
    """A store of which this machine has a cache."""
    uri = str(tmp_path / "store") if request.param == "folder" else f"{MEMORY}-{os.getpid()}"
    return FsspecArtifactStore(uri, scratch=tmp_path / "scratch")


def tree(folder: Path, **texts: str) -> list[tuple[str, Path]]:
    """Return files with these texts; `run` can be run."""
    folder.mkdir(parents=True)
    for name, text in sorted(texts.items()):
        (folder / name).write_text(text)
        (folder / name).chmod(0o700 if name == "run" else 0o600)
    return [(f"000/{name}", folder / name) for name in sorted(texts)]


def test_what_was_put_in_comes_out_and_can_be_run_where_it_could(
    store: FsspecArtifactStore, tmp_path: Path
) -> None:
    ref = store.archive("code/a", tree(tmp_path / "here", run="#!/bin/sh", table="1"))
    folder = store.unpack(ref)
    assert (folder / "000" / "table").read_text() == "1"
    assert os.access(folder / "000" / "run", os.X_OK)
    assert not (folder / "000" / "table").stat().st_mode & 0o111
    assert store.unpack(ref) == folder, "once on a machine"
    store.remove("code/a")


def test_equal_files_have_one_digest_whoever_packs_them_and_when(
    store: FsspecArtifactStore, tmp_path: Path
) -> None:
    first = tree(tmp_path / "one", a="1", run="2")
    second = tree(tmp_path / "two", a="1", run="2")
    for _, path in second:
        os.utime(path, (1.0, 1.0))
    names = ("code/one", "code/two")
    digests = {
        store.archive(n, files).digest for n, files in zip(names, (first, second), strict=True)
    }
    assert len(digests) == 1
    (tmp_path / "two" / "a").chmod(0o755)
    assert store.archive("code/three", second).digest not in digests, "it can be run now"
    for name in (*names, "code/three"):
        store.remove(name)


def test_what_is_there_is_not_read_again_and_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    store = FsspecArtifactStore(str(tmp_path / "store"), scratch=tmp_path / "scratch")
    files = tree(tmp_path / "here", a="1")
    ref = store.archive("code/a", files)

    def nobody() -> object:
        raise AssertionError
        yield

    assert store.archive("code/a", nobody()) == ref  # type: ignore[arg-type]
    (tmp_path / "store/code/a" / archives.ARCHIVE).write_bytes(b"torn")
    assert store.archive("code/a", files) == ref
    assert (store.unpack(ref) / "000" / "a").read_text() == "1"


def test_what_python_compiles_beside_the_files_is_no_change(tmp_path: Path) -> None:
    store = FsspecArtifactStore(str(tmp_path / "store"), scratch=tmp_path / "scratch")
    ref = store.archive("code/a", tree(tmp_path / "here", a="1"))
    compiled = store.unpack(ref) / "000" / "__pycache__"
    compiled.mkdir()
    (compiled / "a.cpython-311.pyc").touch()
    assert (store.unpack(ref) / "000" / "__pycache__" / "a.cpython-311.pyc").exists()
    (compiled.parent / "a").write_text("2")
    assert (store.unpack(ref) / "000" / "a").read_text() == "1", "another change is undone"


@pytest.mark.parametrize("name", ["../out", "/out", "000/../../out", "000/new\nline"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    ((_, path),) = tree(tmp_path / "here", a="1")
    with pytest.raises(ArtifactError, match="is no plain relative path"):
        archives.write(tmp_path, [(name, path)])


def test_a_file_that_can_not_be_read_is_told_on_a_line(tmp_path: Path) -> None:
    store = FsspecArtifactStore(str(tmp_path / "store"))
    (tmp_path / "secret").symlink_to("/proc/self/mem")
    line = r"secret' can't be read: Input/output error; mend it, or name it in \.gitignore$"
    with pytest.raises(ArtifactError, match=line):
        store.archive("code/a", [("000/secret", tmp_path / "secret")])
    with pytest.raises(DamagedError, match="is not there"):
        store.manifest("code/a")


def test_an_archive_that_lacks_what_its_list_names_is_damaged(tmp_path: Path) -> None:
    store = FsspecArtifactStore(str(tmp_path / "store"), scratch=tmp_path / "scratch")
    folder = store.scratch("x")
    archives.write(folder, tree(tmp_path / "here", a="1"))
    with tarfile.open(folder / archives.ARCHIVE, "w"):
        pass
    ref: ArtifactRef = store.commit(folder, "code/a", {})
    with pytest.raises(DamagedError, match="lacks file '000/a'; launch again"):
        store.unpack(ref)
