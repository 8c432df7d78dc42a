"""What a run says of its waits reaches what waits in the process of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters import artifacts, torch_process_group
from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.settings import AttemptSettings
from orchestrator.messages import Succeeded
from tests.clusters import request


def test_a_worker_waits_as_long_as_its_request_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, object] = {}

    @contextmanager
    def group(*_: object, waits: AttemptSettings, **_rest: object) -> Iterator[None]:
        heard["group"] = waits
        yield

    def store(uri: str, patience: float, **others: object) -> FsspecArtifactStore:
        heard["storage"] = patience
        return FsspecArtifactStore(uri, patience=patience, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(torch_process_group, "open_process_group", group)
    monkeypatch.setattr(artifacts, "FsspecArtifactStore", store)
    waits = AttemptSettings(meet=7.0, collective=8.0, storage=9.0)
    asked = replace(
        request("jobs.noop.noop", "t"), waits=waits, storage=tmp_path.as_uri(), packages=("jobs",)
    )
    said = [m for batch in wiring.run_worker(asked, rank=0, rendezvous=None) for m in batch]
    assert isinstance(said[-1], Succeeded), said
    assert heard == {"group": waits, "storage": 9.0}
