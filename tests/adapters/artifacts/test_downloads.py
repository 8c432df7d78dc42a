"""Of a remote artifact that is shared out, a node downloads what its processes ask for, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.artifacts.node_cache import NodeCache
from orchestrator.core.artifact import CacheRoom
from orchestrator.core.errors import DamagedError
from tests.adapters.artifacts.shelf import FILES, contents, put

NAME = "r/train/1"


@pytest.fixture
def node(remote: FsspecArtifactStore, tmp_path: Path) -> Callable[[], FsspecArtifactStore]:
    """Return what opens the store as one more process of a node."""
    put(remote)
    room = CacheRoom(str(tmp_path / "node"))
    return lambda: FsspecArtifactStore(remote._base, room=room)


Node = Callable[[], FsspecArtifactStore]


def only(*paths: str) -> Callable[[str], bool]:
    return frozenset(paths).__contains__


def test_what_is_a_workers_own_is_downloaded_and_the_rest_when_it_is_asked_for(
    node: Node, opened: list[str]
) -> None:
    one, other = node(), node()
    folder, manifest = one.load(NAME, mine=only("weights/a.bin"))
    assert contents(folder) == {"weights/a.bin": b"a" * 100}

    assert other.load(NAME, mine=only("weights/b.bin")) == (folder, manifest)
    assert one.load(NAME, mine=only())[0] == folder
    assert opened == ["weights/a.bin", "weights/b.bin"]

    for store in (one, other):
        assert store.bring(NAME, manifest, lambda _: True) == folder
    assert opened[2:] == ["config.json"]
    assert contents(folder) == FILES
    assert one.load(NAME)[0] == folder
    assert len(opened) == 3, "it is whole"


def test_processes_that_ask_at_once_download_each_file_once(node: Node, opened: list[str]) -> None:
    stores = [node() for _ in range(6)]
    paths = [*FILES] * 2
    threads = [
        threading.Thread(target=store.load, args=(NAME,), kwargs={"mine": only(path)})
        for store, path in zip(stores, paths, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(opened) == sorted(FILES)


def test_a_file_that_was_touched_is_downloaded_anew_and_no_other(
    node: Node, opened: list[str]
) -> None:
    folder, manifest = node().load(NAME, mine=lambda _: True)
    (folder / "weights/a.bin").write_bytes(b"x")
    (folder / "config.json").unlink()
    opened.clear()
    node().bring(NAME, manifest, lambda _: True)
    assert sorted(opened) == ["config.json", "weights/a.bin"]
    assert contents(folder) == FILES


def test_damage_is_found_by_who_asks_for_it_and_what_was_whole_stays(
    remote: FsspecArtifactStore, node: Node, opened: list[str]
) -> None:
    weights = f"{remote._base.removeprefix('memory:/')}/{NAME}/weights/b.bin"
    MemoryFileSystem().pipe_file(weights, b"x" * 100)
    store = node()
    folder, manifest = store.load(NAME, mine=only("weights/a.bin"))
    with pytest.raises(DamagedError, match=r"weights/b\.bin"):
        store.load(NAME, mine=only("weights/a.bin", "weights/b.bin"))
    MemoryFileSystem().rm_file(weights)
    with pytest.raises(DamagedError, match="was taken away"):
        store.bring(NAME, manifest, only("weights/b.bin"))
    assert contents(folder) == {"weights/a.bin": b"a" * 100}
    opened.clear()
    store.load(NAME, mine=only("weights/a.bin"))
    assert opened == []


def test_a_cache_counts_what_it_has_of_an_artifact_and_sweeps_that(
    remote: FsspecArtifactStore, tmp_path: Path
) -> None:
    put(remote)
    store = FsspecArtifactStore(remote._base, attempt="r/train/2", room=CacheRoom(str(tmp_path)))
    folder, _ = store.load(NAME, mine=only("weights/a.bin"))
    size = 100 + (folder / "manifest.json").stat().st_size
    cache = NodeCache(folder.parent)

    assert cache.sweep(1e12, dry=True) == size
    assert cache.sweep(1e12, dry=False) == 0, "it is held"
    store.release()
    assert cache.sweep(1e12, dry=False) == size
    assert not folder.exists()
