"""The working folder of a command is there, as far as the host that plans can see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.settings import (
    ClusterSettings,
    JobSettings,
    Settings,
    StorageSettings,
)
from orchestrator.core.spec.command_stages import JOB
from orchestrator.core.spec.stages import OnPool
from orchestrator.wiring import workdirs
from tests.build import bindings, fleet, pipeline, stage


@pytest.fixture
def planned(tmp_path: Path) -> Settings:
    (tmp_path / "code" / "megatron").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    return Settings(
        pipeline=pipeline(stage("s", job=JOB)),
        fleet=fleet(),
        bindings=bindings(),
        jobs=JobSettings(code=(str(tmp_path / "code"),)),
        storage=StorageSettings(uri=str(tmp_path / "shared" / "artifacts"), shared=True),
        cluster=ClusterSettings(kind="ray"),
    )


def lines(settings: Settings, name: str, cluster: str = "", pool: str = "") -> list[str]:
    params = {"command": "x", "workdir": name}
    own = {"on": {pool: OnPool(params=params)}} if pool else {"params": params}
    settings = replace(settings, pipeline=pipeline(stage("s", job=JOB, **own)))
    return [str(problem) for problem in workdirs.problems(settings, cluster)]


def test_a_folder_that_travels_or_stands_here_is_there(planned: Settings, tmp_path: Path) -> None:
    assert lines(planned, "megatron") == []
    assert lines(planned, "") == []
    assert lines(planned, str(tmp_path / "code")) == []


def test_one_that_is_not_is_a_line_also_for_one_pool(planned: Settings, tmp_path: Path) -> None:
    (told,) = lines(planned, "megatro", pool="b")
    code = str(tmp_path / "code")
    assert told.startswith(
        f"pipeline.stages.s.on.b.workdir: 'megatro' is no folder of jobs.code ({code!r}); add"
    )
    assert lines(planned, "/no/such") == [
        "pipeline.stages.s.workdir: '/no/such' is no folder of this host; mend its path"
    ]


def test_on_hosts_of_others_only_what_lies_on_shared_storage_can_be_seen(
    planned: Settings, tmp_path: Path
) -> None:
    head = "head:6379"
    assert lines(planned, "/no/such", head) == []
    assert lines(planned, str(tmp_path / "shared"), head) == []
    (told,) = lines(planned, str(tmp_path / "shared" / "megatron"), head)
    assert told.endswith("is no folder of the shared storage; mend its path, or copy it there")
