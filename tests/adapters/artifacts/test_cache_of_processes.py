"""The processes of a node share its cache, also where one is killed; and what a full disk does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import ArtifactRef, CacheRoom
from orchestrator.core.errors import StorageError
from orchestrator.node import scratch
from orchestrator.node.scratch import LOCK
from tests.adapters.artifacts.shelf import FILES, contents, put
from tests.s3 import FaultyProxy, S3Server, faulty

ROOT = Path(__file__).parents[3]

FETCHES = """
import json, sys
from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import ArtifactRef
uri, ref = sys.argv[1], ArtifactRef(**json.loads(sys.argv[2]))
print(FsspecArtifactStore(uri).fetch(ref), flush=True)
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The folder for temporary files of a node."""
    (tmp_path / "node").mkdir()
    return tmp_path / "node"


def fetching(proxy: FaultyProxy, uri: str, ref: ArtifactRef, node: Path) -> subprocess.Popen[str]:
    """Return a process of this node that fetches an artifact."""
    place = {"TMPDIR": str(node), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FETCHES, uri, json.dumps(asdict(ref))]
    env = {**proxy.server.environment(proxy.url), **place}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_the_processes_of_a_node_download_once(
    s3: S3Server, bucket: str, tmp_path: Path, node: Path
) -> None:
    ref = put(FsspecArtifactStore(bucket, tmp_path / "scratch"))
    with faulty(s3) as proxy:
        workers = [fetching(proxy, bucket, ref, node) for _ in range(3)]
        folders = {worker.communicate(timeout=100)[0].strip() for worker in workers}
    assert len(folders) == 1
    assert contents(Path(folders.pop())) == FILES
    asked = [path for method, path in proxy.seen if method == "GET" and ".bin" in path]
    assert len(asked) == 2


def test_a_download_that_was_killed_is_removed_by_whoever_comes_next(
    s3: S3Server, bucket: str, tmp_path: Path, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FsspecArtifactStore(bucket, tmp_path / "scratch")
    ref, other = put(store), put(store, "r/other/1", {"small": b"x"})
    killed = node / "orchestrator-scratch-of-a-dead-process"  # half filled, to be sent
    killed.mkdir()
    (killed / LOCK).write_bytes(scratch._machine())
    reached, ends = threading.Event(), threading.Event()
    with faulty(s3) as proxy:
        answer = proxy.answer

        def stall(method: str, path: str, *rest: object) -> object:
            if path.endswith("b.bin"):
                reached.set()
                ends.wait(60)
            return answer(method, path, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(proxy, "answer", stall)
        victim = fetching(proxy, bucket, ref, node)
        assert reached.wait(60)
        victim.kill()
        victim.communicate()
        ends.set()
        assert list(node.rglob("fresh/weights/a.bin"))
        folder = fetching(proxy, bucket, other, node).communicate(timeout=100)[0].strip()
    [root] = node.iterdir()
    assert [path for path in root.iterdir() if path.is_dir()] == [Path(folder)]


def test_a_disk_that_is_full_is_the_storage_in_one_line_and_keeps_nothing_half(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    try:
        store = FsspecArtifactStore(bucket, tmp_path / "scratch")
        small = put(store, "r/small/1", {"w": b"x" * 600_000})
        large = put(store, "r/large/1", {"w": b"x" * 2_000_000})
        there = FsspecArtifactStore(bucket, room=CacheRoom(str(disk)))
        held = there.fetch(small)
        said = (
            r"no space for 0.002 GB of artifact 'r/large/1' in the cache '.*': "
            r"No space left on device; free some there, or name another folder: storage.cache"
        )
        with pytest.raises(StorageError, match=said):
            there.fetch(large)
        assert [path for path in held.parent.iterdir() if path.is_dir()] == [held]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607 - as above
