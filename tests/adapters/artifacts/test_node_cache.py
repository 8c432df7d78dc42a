"""What one process of a machine has downloaded the others use; what nobody uses makes room."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore, node_cache
from orchestrator.adapters.artifacts.local_place import LocalPlace
from orchestrator.adapters.artifacts.manifests import hash_stream
from orchestrator.adapters.artifacts.node_cache import NodeCache
from orchestrator.core.artifact import CacheRoom, FileEntry, Manifest
from orchestrator.core.errors import DamagedError, StorageError
from orchestrator.wiring.storage import room_here
from tests.adapters.artifacts.shelf import FILES, contents, put

SIZE = 100


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a machine of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def manifest(content: str) -> Manifest:
    return Manifest({"w": FileEntry(SIZE, content * 64)}, {})


def filling(folder: Path) -> None:
    folder.mkdir()
    (folder / "w").write_bytes(b"x" * SIZE)


def refuse(_folder: Path) -> None:
    raise AssertionError


def test_all_stores_of_a_machine_share_what_was_downloaded(
    remote: FsspecArtifactStore, temporary: Path, opened: list[str]
) -> None:
    ref = put(remote)
    one, other = FsspecArtifactStore(remote._base), FsspecArtifactStore(remote._base)
    folder = one.fetch(ref)
    assert other.fetch(ref) == folder
    assert sorted(opened) == sorted(FILES)
    del one, other
    assert contents(folder) == FILES
    assert [path.name for path in temporary.iterdir()] == [f"orchestrator-cache-{os.getuid()}"]


def test_workers_that_come_at_once_download_once(
    remote: FsspecArtifactStore, opened: list[str]
) -> None:
    ref = put(remote)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(remote.fetch(ref))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4
    assert sorted(opened) == sorted(FILES)
    assert contents(found[0]) == FILES


def test_what_was_verified_is_not_hashed_again(
    remote: FsspecArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = put(remote)
    remote.fetch(ref)

    def hashed(*_words: object) -> None:
        raise AssertionError

    monkeypatch.setattr("orchestrator.adapters.artifacts.manifests.hash_stream", hashed)
    assert contents(remote.fetch(ref)) == FILES


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "config.json").write_bytes(b"[]"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "more").write_bytes(b""),
    ],
    ids=["altered", "lost", "more"],
)
def test_what_was_touched_is_downloaded_anew(
    remote: FsspecArtifactStore, harm: Callable[[Path], None]
) -> None:
    ref = put(remote)
    folder = remote.fetch(ref)
    harm(folder)
    assert contents(remote.fetch(ref)) == FILES


def test_a_download_that_fails_leaves_nothing_and_is_made_again(
    remote: FsspecArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = put(remote)

    def away(*_words: object, **_more: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "open", away)
        with pytest.raises(StorageError):
            remote.fetch(ref)
    left = [path for path in (tmp_path / "scratch/cache").iterdir() if path.is_dir()]
    assert left == []
    assert contents(remote.fetch(ref)) == FILES


def test_a_download_of_damage_is_not_kept(remote: FsspecArtifactStore) -> None:
    ref = put(remote)
    at = remote._base.removeprefix("memory:/") + "/r/train/1/config.json"
    MemoryFileSystem().pipe_file(at, b"[]")
    with pytest.raises(DamagedError, match=r"file 'config.json' has"):
        remote.fetch(ref)
    MemoryFileSystem().pipe_file(at, b"{}")
    assert contents(remote.fetch(ref)) == FILES


# --- room ---------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", 2 * SIZE + 50)


def let_go(cache: NodeCache) -> None:
    """Hold nothing any more, as if this process had ended."""
    for path in [path for path in node_cache._held if path.parent == cache.root]:
        os.close(node_cache._held.pop(path))


def there(cache: NodeCache) -> set[str]:
    return {path.name for path in cache.root.iterdir() if path.is_dir()}


def test_what_was_not_used_for_longest_makes_room(cache: NodeCache) -> None:
    first, second, third = (manifest(content) for content in "abc")
    for age, one in ((200, first), (100, second)):
        cache.folder(one, filling)
        os.utime(cache._stamp(one.digest), (age, age))
    cache.folder(first, refuse)  # used again
    let_go(cache)
    cache.folder(third, filling)
    assert there(cache) == {first.digest, third.digest}


def test_what_is_used_stays_even_where_it_is_too_much(cache: NodeCache) -> None:
    held = [manifest(content) for content in "abcd"]
    for one in held:
        cache.folder(one, filling)
    assert there(cache) == {one.digest for one in held}


def test_what_was_fetched_for_an_attempt_makes_room_when_all_who_hold_it_are_over(
    remote: FsspecArtifactStore, tmp_path: Path
) -> None:
    room = CacheRoom(str(tmp_path / "node"), SIZE / 1e9)
    first, *others = (put(remote, f"r/{name}/1", {"w": name.encode() * SIZE}) for name in "abc")
    one, other, last = (
        FsspecArtifactStore(remote._base, attempt=f"r/{number}", room=room) for number in "123"
    )
    folder = one.fetch(first)
    assert other.fetch(first) == folder
    one.release()
    last.fetch(others[0])
    assert folder.exists(), "the other attempt reads it"
    other.release()
    other.release()
    last.fetch(others[1])
    assert not folder.exists()


def test_what_a_killed_process_left_half_is_removed(cache: NodeCache) -> None:
    one = manifest("a")
    cache.root.mkdir()
    (cache.root / f".{one.digest}-killed/fresh").mkdir(parents=True)
    (cache.root / one.digest).mkdir()  # moved there, and not said to be verified
    folder = cache.folder(one, filling)
    assert (folder / "w").stat().st_size == SIZE
    assert there(cache) == {one.digest}


def test_an_artifact_of_no_files_is_one(remote: FsspecArtifactStore) -> None:
    ref = put(remote, files={})
    assert contents(remote.fetch(ref)) == {}
    assert contents(remote.fetch(ref)) == {}


def test_a_cache_that_somebody_else_has_put_there_is_not_used(temporary: Path) -> None:
    (temporary / f"orchestrator-cache-{os.getuid()}").symlink_to("/")
    assert node_cache.cache_root().name.startswith("orchestrator-scratch-")


def test_a_node_keeps_it_in_the_folder_that_is_named(
    remote: FsspecArtifactStore, temporary: Path, tmp_path: Path
) -> None:
    ref = put(remote)
    room = CacheRoom(str(tmp_path / "a disk"))
    store = FsspecArtifactStore(remote._base, room=room)
    own = tmp_path / "a disk" / f"orchestrator-cache-{os.getuid()}"
    assert store.fetch(ref).parent == own
    assert store.scratch("x").parent.parent == tmp_path / "a disk"
    assert list(temporary.iterdir()) == []


def test_the_environment_of_a_node_names_the_folder_before_the_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = CacheRoom("/of/the/config", 7)
    assert room_here(asked) == asked
    monkeypatch.setenv("ORCHESTRATOR_CACHE", "/of/the/node")
    assert room_here(asked) == CacheRoom("/of/the/node", 7)


# --- what each rank reads, it proves ------------------------------------------------------------


def test_a_rank_hashes_again_what_it_reads_of_a_download(
    remote: FsspecArtifactStore, opened: list[str]
) -> None:
    put(remote)
    folder, _ = remote.load("r/train/1")
    before = (folder / "weights/a.bin").stat()
    (folder / "weights/a.bin").write_bytes(b"c" * 100)  # by a disk that says nothing of it
    os.utime(folder / "weights/a.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    opened.clear()
    remote.load("r/train/1", mine=lambda path: path == "weights/b.bin")
    assert opened == []
    folder, _ = remote.load("r/train/1", mine=lambda path: path == "weights/a.bin")
    assert opened == ["weights/a.bin"]
    assert contents(folder) == FILES


# --- a disk that is full ------------------------------------------------------------------------


def no_space(folder: Path) -> None:
    folder.mkdir()
    (folder / "w").write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_during_a_download_makes_room_once(cache: NodeCache) -> None:
    old, new = manifest("a"), manifest("b")
    cache.folder(old, filling)
    let_go(cache)
    tries = iter([no_space, filling])

    def fill(folder: Path) -> None:
        next(tries)(folder)

    cache.folder(new, fill)
    assert there(cache) == {new.digest}


def test_files_are_hashed_as_they_were_sent(remote: FsspecArtifactStore) -> None:
    ref = put(remote)
    with (remote.fetch(ref) / "weights/a.bin").open("rb") as stream:
        assert hash_stream(stream) == remote.verify(ref.uri).files["weights/a.bin"]


# --- what lies in a folder ----------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of a folder that were hashed."""
    found: list[str] = []
    open_file = LocalPlace.open

    def count(self: LocalPlace, name: str, path: str) -> object:
        found.append(path)
        return open_file(self, name, path)

    monkeypatch.setattr(LocalPlace, "open", count)
    return found


def test_workers_of_an_attempt_verify_a_folder_together(
    root: Path, local: FsspecArtifactStore, temporary: Path, hashed: list[str]
) -> None:
    ref = put(local)
    for _ in range(3):
        worker = FsspecArtifactStore(str(root), attempt="r/train/1")
        assert contents(worker.fetch(ref)) == FILES
        worker.load("r/train/1")
    assert sorted(hashed) == sorted(FILES)
    FsspecArtifactStore(str(root), attempt="r/train/2").fetch(ref)
    assert sorted(hashed) == sorted([*FILES, *FILES])


def test_what_was_touched_since_one_worker_verified_it_is_found_by_the_next(
    root: Path, local: FsspecArtifactStore, temporary: Path
) -> None:
    ref = put(local)
    workers = [FsspecArtifactStore(str(root), attempt="r/train/1") for _ in range(2)]
    workers[0].fetch(ref)
    (root / "r/train/1/config.json").write_bytes(b"[]")
    for worker in workers:
        with pytest.raises(DamagedError, match=r"file 'config.json' has"):
            worker.fetch(ref)


def test_stamps_of_a_week_ago_are_removed(
    root: Path, local: FsspecArtifactStore, temporary: Path
) -> None:
    ref = put(local)
    for number in (1, 2):
        FsspecArtifactStore(str(root), attempt=f"r/train/{number}").fetch(ref)
        [*_, stamp] = sorted(node_cache.cache_root().glob(".once-*"), key=os.path.getmtime)
        if number == 1:
            os.utime(stamp, (1000.0, 1000.0))
    FsspecArtifactStore(str(root), attempt="r/train/2").fetch(ref)
    assert stamp.exists()
    assert len(list(node_cache.cache_root().glob(".once-*"))) == 1


def test_what_nobody_used_for_long_is_swept_but_not_what_somebody_holds(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache")
    held, old, new = (cache.folder(manifest(content), filling) for content in "abc")
    digests = {folder: folder.name for folder in (held, old, new)}
    for folder in (held, old):
        os.utime(cache.root / f".{digests[folder]}.verified", (100.0, 100.0))
    for folder in (old, new):
        os.close(node_cache._held.pop(cache.root / f".{digests[folder]}.used"))
    assert cache.sweep(200.0, dry=True) == 2 * SIZE
    assert all(folder.exists() for folder in digests)
    assert cache.sweep(200.0, dry=False) == SIZE
    assert [folder.exists() for folder in (held, old, new)] == [True, False, True]
    assert cache.sweep(50.0, dry=False) == 0
    left = {path.name.split(".")[1] for path in cache.root.glob(".*")}
    assert left == {held.name, new.name}, "nothing is left of what was swept"


def test_who_waits_for_a_lock_whose_file_goes_meanwhile_holds_the_next(tmp_path: Path) -> None:
    path, held = tmp_path / ".a.used", threading.Event()
    handles = []

    def wait() -> None:
        held.set()
        handles.append(node_cache._lock(path, fcntl.LOCK_SH))

    first = node_cache._lock(path, fcntl.LOCK_EX)
    thread = threading.Thread(target=wait)
    thread.start()
    assert held.wait(10)
    path.unlink()
    os.close(first)
    thread.join(10)
    with pytest.raises(BlockingIOError):
        node_cache._lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handles[0])
