"""Code that has travelled goes once no run has it that stays: in a folder and in a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ShippedCode
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.run import Run
from orchestrator.service.code_archives import SECONDS_TO_BE_RECORDED, CodeArchives
from tests.build import header, plan, stage
from tests.s3 import S3Server, s3_server

NOW = 10_000_000.0
LONG_AGO = NOW - SECONDS_TO_BE_RECORDED - 1
HERE, ELSEWHERE = "this home", "another home"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FsspecArtifactStore:
    if request.param == "folder":
        return FsspecArtifactStore((tmp_path / "artifacts").as_uri())
    server: S3Server = request.getfixturevalue("s3")
    monkeypatch.setitem(fsspec.config.conf, "s3", server.settings())
    return FsspecArtifactStore(f"s3://{server.bucket()}/some/prefix", tmp_path / "scratch")


class Code:
    """A store with code in it, and the runs that have it."""

    def __init__(self, store: FsspecArtifactStore, folder: Path) -> None:
        self.store, self._folder = store, folder

    def ship(self, key: str) -> ShippedCode:
        """Have an archive in the store."""
        file = self._folder / f"{key}.py"
        file.write_text(f"NAME = {key!r}")
        return ShippedCode(self.store.archive(artifact_paths.code(key), [(file.name, file)]))

    def mark(self, key: str, run: str, at: float = LONG_AGO, home: str = HERE) -> None:
        """Say that a run was given code."""
        text = json.dumps({"at": at, "home": home})
        self.store.mark(artifact_paths.user_of_code(key, run), text)

    def archives(
        self,
        removed: Sequence[Run] = (),
        stay: Sequence[Run] = (),
        served: Sequence[ShippedCode] = (),
    ) -> CodeArchives:
        return CodeArchives(
            store=self.store, removed=removed, stay=stay, served=served, home=HERE, now=NOW
        )

    def left(self) -> list[str]:
        return list(self.store.names(artifact_paths.CODE))

    def marked(self, key: str) -> list[str]:
        return list(self.store.names(artifact_paths.users_of_code(key)))


@pytest.fixture
def code(store: FsspecArtifactStore, tmp_path: Path) -> Code:
    return Code(store, tmp_path)


def run(name: str, shipped: ShippedCode | None) -> Run:
    return begin(replace(header(plan(stage("s")), name), code=shipped))


def test_code_goes_with_the_last_run_that_has_it(code: Code) -> None:
    shared, other = code.ship("shared"), code.ship("other")
    runs = [run("first", shared), run("second", shared), run("third", other)]
    for known in runs:
        code.mark("other" if known.header.run == "third" else "shared", known.header.run)
    some = code.archives(removed=runs[:1], stay=runs[1:])
    assert list(some.lines()) == []
    assert some.remove() == 0
    assert (code.left(), code.marked("shared")) == (["other", "shared"], ["second"])

    more = code.archives(removed=runs[:2], stay=runs[2:])
    assert [line.partition(":")[0] for line in more.lines()] == ["code shared"]
    assert code.left() == ["other", "shared"], "what is told first is not removed by that"
    assert more.remove() > 0
    assert (code.left(), code.marked("shared")) == (["other"], [])
    code.store.fetch(other.archive)
    assert more.remove() == 0


def test_code_of_a_run_that_is_being_launched_stays_and_goes_if_that_never_was(code: Code) -> None:
    code.ship("new")
    code.mark("new", "launched", at=NOW - 60)
    assert code.archives().remove() == 0
    assert code.left() == ["new"]
    code.mark("new", "launched")
    assert code.archives().remove() > 0
    assert code.left() == []


def test_an_older_archive_stays_for_a_launch_that_takes_it_again(code: Code) -> None:
    shipped = code.ship("old")
    code.mark("old", "over")
    code.mark("old", "launched", at=NOW - 1)
    assert code.archives(removed=[run("over", shipped)]).remove() == 0
    assert (code.left(), code.marked("old")) == (["old"], ["launched"])


def test_code_that_another_database_has_marked_stays_though_no_run_here_has_it(
    code: Code,
) -> None:
    shipped = code.ship("both")
    code.mark("both", "ours")
    code.mark("both", "theirs", home=ELSEWHERE)
    assert code.archives(removed=[run("ours", shipped)]).remove() == 0
    assert (code.left(), code.marked("both")) == (["both"], ["theirs"])


def test_what_a_live_revision_runs_stays_until_that_is_retired(code: Code) -> None:
    before, after = code.ship("before"), code.ship("after")
    reopened = run("deployer", after)
    code.mark("before", "deployer")
    code.mark("after", "deployer")
    assert code.archives(stay=[reopened], served=[before]).remove() == 0
    assert code.left() == ["after", "before"]
    assert code.archives(stay=[reopened]).remove() > 0
    assert code.left() == ["after"]


def test_code_that_a_run_is_being_resumed_with_stays(code: Code) -> None:
    before = code.ship("before")
    code.ship("after")
    code.mark("before", "resumed")
    code.mark("after", "resumed", at=NOW - 1)
    assert code.archives(stay=[run("resumed", before)]).remove() == 0
    assert code.left() == ["after", "before"]


def test_an_archive_that_nobody_here_was_given_is_left(code: Code) -> None:
    unknown, ours = code.ship("unknown"), code.ship("ours")
    assert unknown != ours
    assert code.archives(removed=[run("before marks", ours)]).remove() > 0
    assert code.left() == ["unknown"]
