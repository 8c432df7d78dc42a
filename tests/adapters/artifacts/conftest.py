"""A store in a folder, one in the memory of this process, and one in a bucket of a real S3 API."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.artifacts.remote_place import RemotePlace
from tests.s3 import S3Server, s3_server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a store"


@pytest.fixture
def local(root: Path) -> FsspecArtifactStore:
    return FsspecArtifactStore(root.as_uri())


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[FsspecArtifactStore]:
    folder = f"/{uuid.uuid4().hex}"
    yield FsspecArtifactStore(f"memory:/{folder}", tmp_path / "scratch")
    if MemoryFileSystem().exists(folder):
        MemoryFileSystem().rm(folder, recursive=True)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new bucket, which this process may use."""
    monkeypatch.setitem(fsspec.config.conf, "s3", s3.settings())
    return f"s3://{s3.bucket()}"


@pytest.fixture
def in_bucket(bucket: str, tmp_path: Path) -> FsspecArtifactStore:
    return FsspecArtifactStore(f"{bucket}/some/prefix", tmp_path / "scratch")


@pytest.fixture(params=["local", "remote", "in_bucket"])
def store(request: pytest.FixtureRequest) -> FsspecArtifactStore:
    made: FsspecArtifactStore = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were downloaded."""
    paths: list[str] = []
    fetch = RemotePlace.fetch

    def count(self: RemotePlace, name: str, path: str, target: Path) -> None:
        paths.append(path)
        fetch(self, name, path, target)

    monkeypatch.setattr(RemotePlace, "fetch", count)
    return paths
