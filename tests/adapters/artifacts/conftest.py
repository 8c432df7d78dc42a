"""A store in a folder, and one in the memory of this process, which stands for a remote."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore


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


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest) -> FsspecArtifactStore:
    made: FsspecArtifactStore = request.getfixturevalue(request.param)
    return made
