"""Runs worker RANK of an export in this process: `python export_worker.py SPEC`.

Its outputs lie at a path relative to its working folder, which no other worker sees: as on a node
of its own. What it says last is printed as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from orchestrator import wiring
from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.torch_process_group import open_process_group
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.spec.stages import Needs
from orchestrator.worker.attempt import stream
from tests.build import attempt_request

if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    request = attempt_request(
        "export",
        job="jobs.export.export",
        params={"format": "int8"},
        packages=("jobs",),
        inputs={"model": ArtifactRef(**spec["model"])},
        storage=spec["storage"],
        seed=7,
        needs=Needs(workers=spec["workers"]),
    )
    *_, last = stream(
        request,
        rank=spec["rank"],
        rendezvous=spec["rendezvous"],
        store=FsspecArtifactStore(spec["storage"], Path("scratch"), wiring.clock()),
        clock=wiring.clock(),
        process_group=open_process_group,
    )
    print(json.dumps({"kind": type(last[-1]).__name__, **asdict(last[-1])}, default=str))
