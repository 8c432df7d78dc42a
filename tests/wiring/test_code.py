"""The code of a run travels by digest: as it was when the run was launched."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ShippedCode
from orchestrator.core.errors import ArtifactError, ConfigError
from orchestrator.core.runs.fold import begin
from orchestrator.core.settings import ClusterSettings, JobSettings, Settings
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.plan import make_plan
from orchestrator.core.spec.stages import Bindings
from tests.build import fleet, header, pipeline, pool, stage


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of code on a machine with a cache of its own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "acme.py").write_text("def work(ctx): ...")
    (tmp_path / "code" / "prompt.txt").write_text("be kind")
    return tmp_path / "code"


@cache
def composed() -> Settings:
    return wiring.settings(["fleet=local", "pipeline=noop", "tracking=none"])


def settings(code: Path, *, most_mb: int = 500) -> Settings:
    jobs = JobSettings(packages=("acme",), code=(str(code),), most_mb=most_mb)
    return replace(composed(), jobs=jobs)


def shipped(code: Path, home: Path) -> ShippedCode:
    found = wiring.ship(settings(code), home, "run")
    assert found is not None
    return found


def test_equal_code_is_stored_once_and_other_code_beside_it(code: Path, tmp_path: Path) -> None:
    first = shipped(code, tmp_path / "home")
    assert first.packages == ("acme",)
    assert shipped(code, tmp_path / "home") == first
    (code / "prompt.txt").write_text("be short")
    second = shipped(code, tmp_path / "home")
    assert second.digest != first.digest
    (code / "prompt.txt").write_text("be kind")
    assert shipped(code, tmp_path / "home") == first
    assert len(list((tmp_path / "home/artifacts/code").iterdir())) == 2


def test_a_run_that_was_given_code_is_marked_beside_it_and_one_that_takes_it_over_too(
    code: Path, tmp_path: Path
) -> None:
    given = shipped(code, tmp_path / "home")
    taken = wiring.ship(settings(code), tmp_path / "home", "another", given)
    assert taken == given
    store = wiring.artifact_store((tmp_path / "home" / "artifacts").as_uri())
    key = artifact_paths.key_of_code(given.archive.uri)
    assert store.names(artifact_paths.users_of_code(key)) == ["another", "run"]
    assert store.names(artifact_paths.CODE) == [key]


def test_the_home_in_the_folder_of_the_code_does_not_travel(code: Path) -> None:
    home = code / "state"
    first = shipped(code, home)
    (home / "events.db").write_text("other")
    assert shipped(code, home).digest == first.digest


def test_nothing_travels_to_what_runs_in_this_process(code: Path, tmp_path: Path) -> None:
    here = replace(settings(code, most_mb=1), cluster=ClusterSettings(kind="local"))
    (code / "large.bin").write_bytes(b"1" * 2_000_000)
    assert wiring.ship(here, tmp_path / "home", "run") is None
    assert wiring.weigh(here, tmp_path / "home") == ((), ())
    assert not wiring.changed(here, tmp_path / "home", None)
    with pytest.raises(ConfigError, match="more than 1 MB of files would travel"):
        wiring.ship(settings(code, most_mb=1), tmp_path / "home", "run")


def test_a_file_that_can_not_be_read_is_told_on_a_line(code: Path, tmp_path: Path) -> None:
    (code / "secret").symlink_to("/proc/self/mem")
    with pytest.raises(ArtifactError, match=r"/secret' can't be read: Input/output error; mend"):
        wiring.ship(settings(code), tmp_path / "home", "run")


def test_that_code_has_changed_is_known_and_where_it_is_not_here_it_has_not(
    code: Path, tmp_path: Path
) -> None:
    home, here = tmp_path / "home", settings(code)
    sent = shipped(code, home)
    assert not wiring.changed(here, home, sent)
    (code / "acme.py").write_text("def work(ctx): return {}")
    assert wiring.changed(here, home, sent)
    assert wiring.with_code(here, home, sent) == (here, None)
    code.rename(tmp_path / "elsewhere")
    assert not wiring.changed(here, home, sent)
    planned, own = wiring.with_code(here, home, sent)
    assert own == sent, "the run goes on with its own"
    (folder,) = planned.jobs.code
    assert (Path(folder) / "acme.py").read_text() == "def work(ctx): ..."


def test_the_key_of_a_result_is_that_of_the_code_that_was_shipped(
    code: Path, tmp_path: Path
) -> None:
    home, here = tmp_path / "home", settings(code)
    bindings = Bindings(roles={Role.TRAIN: "nvidia"})
    planned = make_plan(pipeline(stage("s", job="acme.work")), fleet(pool("nvidia")), bindings)
    run = begin(header(planned))

    def key(sent: ShippedCode | None) -> str | None:
        driven = replace(run, header=replace(run.header, code=sent))
        return wiring.attempt_defaults(here, home).reuse_key(driven, driven.stages["s"])

    first = shipped(code, home)
    before = key(first)
    (code / "prompt.txt").write_text("be short")
    assert key(first) == before, "somebody goes on writing, and the run has what it had"
    second = shipped(code, home)
    assert key(second) not in {before, None}
    code.rename(tmp_path / "elsewhere")
    assert key(first) == before, "whoever drives it needs no folder of the code"
