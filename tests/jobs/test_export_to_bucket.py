"""Several workers on nodes of their own export a model into a bucket."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import fsspec
import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import ArtifactRef
from tests.jobs import export_worker
from tests.jobs.local_context import LocalContext
from tests.jobs.test_export import assert_same, exported
from tests.ports import free_address
from tests.s3 import s3_server

ROOT = Path(__file__).parents[2]


def test_two_nodes_export_into_a_bucket_what_one_worker_writes(
    tmp_path: Path, undisturbed: LocalContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = exported(tmp_path / "alone", undisturbed.output, format="int8").output
    with s3_server() as s3:
        monkeypatch.setitem(fsspec.config.conf, "s3", s3.settings())
        storage = f"s3://{s3.bucket()}/artifacts"
        store = FsspecArtifactStore(storage, tmp_path / "scratch")
        folder = store.scratch("model")
        shutil.copytree(undisturbed.output, folder, dirs_exist_ok=True)
        model = store.commit(folder, "run/train/1", {})
        spec = {"storage": storage, "model": asdict(model), "rendezvous": free_address()}
        nodes = [tmp_path / f"node-{rank}" for rank in range(2)]
        workers = []
        for rank, node in enumerate(nodes):
            node.mkdir()
            words = json.dumps({**spec, "workers": 2, "rank": rank})
            workers.append(
                subprocess.Popen(
                    [sys.executable, export_worker.__file__, words],
                    cwd=node,
                    env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **s3.environment()},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        said = [json.loads(worker.communicate(timeout=110)[0]) for worker in workers]
        assert [outcome["kind"] for outcome in said] == ["Succeeded"] * 2, said
        ref = ArtifactRef(**said[0]["artifact"])
        together = store.fetch(ref)
    files = sorted(path.name for path in together.glob("*.safetensors"))
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert_same(alone, together)
