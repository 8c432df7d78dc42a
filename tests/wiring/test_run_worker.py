"""A worker holds what it reads and fills while it works, and nothing when it is over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.artifacts.node_cache import NodeCache
from orchestrator.core.artifact import CacheRoom
from orchestrator.messages import Message, Succeeded
from tests.worker.conftest import Bench


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The folder of a node for what it keeps for a while."""
    return tmp_path / "node"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Attempts whose storage is in the memory of this process."""
    monkeypatch.syspath_prepend(str(tmp_path))
    store = FsspecArtifactStore(f"memory://{tmp_path.name}", tmp_path / "scratch")
    return Bench(tmp_path, f"jobs_of_{tmp_path.name}", store)


def said(bench: Bench, source: str, node: Path, **changes: object) -> Message:
    """Return the outcome of a worker of that node, and its cache."""
    bench.write(source)
    request = bench.request(room=CacheRoom(str(node)), **changes)
    *_, last = wiring.run_worker(request, rank=0, rendezvous=None)
    return last[-1]


def test_what_it_reads_is_held_until_it_is_over(bench: Bench, node: Path) -> None:
    folder = bench.store.scratch("model")
    (folder / "w").write_bytes(b"weights")
    source = """
        from orchestrator.adapters.artifacts.node_cache import NodeCache
        def job(ctx):
            return {"freed": NodeCache(ctx.inputs["model"].parent).sweep(1e12, dry=False)}
        """
    model = bench.store.commit(folder, "r2-1/model/1", {})
    outcome = said(bench, source, node, inputs={"model": model})
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.metrics == {"freed": 0}
    freed = NodeCache(node / f"orchestrator-cache-{os.getuid()}").sweep(1e12, dry=False)
    assert freed > len(b"weights")


@pytest.mark.parametrize("ends", ["return {}", "raise ValueError"])
def test_the_folder_for_what_it_fills_goes_with_it(bench: Bench, node: Path, ends: str) -> None:
    source = f"""
        def job(ctx):
            (ctx.output / "w").write_bytes(b"weights")
            {ends}
        """
    said(bench, source, node)
    assert list(node.iterdir()) == []
