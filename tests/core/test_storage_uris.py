"""Who sees a storage is what fsspec makes of its URI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from orchestrator.core.storage_uris import Sight, absolute, local_folder, protocols, seen_by

HOST = (
    "/srv/a",
    "art",
    "./art",
    "a:b",
    "memory:x",
    "file:///srv/a",
    "file:art",
    "local:///srv/a",
    "local:art",
    "simplecache::file:///srv/a",
    "simplecache::file:art",
    "blockcache::/srv/a",
    "filecache::local:///srv/a",
    "dir://x::file:///srv/a",
)
PROCESS = ("memory://x", "simplecache::memory://x", "dir://x::memory://y")
EVERYWHERE = ("s3://b/x", "simplecache::s3://b/x", "dir://x::s3://b")


def target(uri: str) -> AbstractFileSystem:
    """Return the file system where the bytes lie."""
    system, _ = url_to_fs(uri)
    while isinstance(getattr(system, "fs", None), AbstractFileSystem):
        system = system.fs
    return system


@pytest.mark.parametrize("uri", [*HOST, *PROCESS, *EVERYWHERE])
def test_who_sees_it_is_as_fsspec_opens_it(uri: str) -> None:
    kinds = {LocalFileSystem: Sight.HOST, MemoryFileSystem: Sight.PROCESS}
    assert seen_by(uri) is kinds.get(type(target(uri)), Sight.EVERYWHERE)


def test_a_folder_of_the_home_and_what_lies_over_nothing_are_of_this_host() -> None:
    assert [seen_by(uri) for uri in ("", "dir:///x", "simplecache:///x")] == [Sight.HOST] * 3


@pytest.mark.parametrize("uri", ["art", "./art", "file:art", "file://art", "local:art"])
def test_a_path_is_absolute_where_fsspec_has_it(tmp_path: Path, uri: str) -> None:
    whole = absolute(uri, tmp_path)
    assert local_folder(whole) == tmp_path / "art"
    for over in ("",) if uri == "art" else ("", "simplecache::"):  # a word is a protocol there
        _, path = url_to_fs(absolute(over + uri, tmp_path))
        assert path == os.fspath(tmp_path / "art")


@pytest.mark.parametrize(
    "uri",
    ["", "/srv/../a", "file:///srv/a%20b", "s3://b/x", "memory://x", "simplecache::s3://b/x"],
)
def test_what_is_absolute_stays_as_it_is_written(tmp_path: Path, uri: str) -> None:
    assert absolute(uri, tmp_path) == uri


def test_a_chain_is_no_folder_and_has_the_protocols_of_its_links() -> None:
    assert local_folder("simplecache::file:///srv/a") is None
    assert protocols("simplecache::s3://b/x") == ["simplecache", "s3"]
    assert protocols("dir://x::/srv/a") == ["dir", "file"]
    assert local_folder("/srv/a::b") == Path("/srv/a::b")
