"""What `gc` removes of a real home, and what it leaves: a real store, a real database."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import wiring
from orchestrator.adapters.artifacts import FsspecArtifactStore, node_cache
from orchestrator.adapters.artifacts.node_cache import NodeCache, cache_root
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ArtifactRef, Manifest, ShippedCode
from orchestrator.core.endpoints.life import (
    EndpointEvent,
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    SharesMoved,
)
from orchestrator.core.errors import TrackingError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.retention import Retention
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    RunFailed,
    RunReopened,
    RunStarted,
    RunSucceeded,
    StageFailed,
)
from orchestrator.core.trust.model_versions import KEY, ModelVersion, key_of
from orchestrator.messages import Points, Succeeded
from orchestrator.service import driving
from orchestrator.service.collecting import DAY, Kind, collect
from orchestrator.service.switching import run_of
from tests.build import deployment, header, plan, stage

ALL = Retention(newest=0, days=30.0)
EVERYTHING = tuple(Kind)
BESIDE = {"checkpoints", "logs"}
FAILED = (
    AttemptFailed("s", 1, Failure(kind=FailureKind.USER_CODE, evidence="broke", pool="a")),
    StageFailed("s", "broke"),
    RunFailed("s broke"),
)


class Home:
    """A home with runs that ended so many days ago."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = SqlDatabase(folder / "events.db", secret=lambda: b"s" * 32)
        self.store = FsspecArtifactStore((folder / "artifacts").as_uri())
        self.now = self.database.now()

    def run(
        self, name: str, days: float, *, ends: Sequence[Event] = (), shown: bool = False
    ) -> ArtifactRef:
        """Add a run that ended `days` ago, with all that one has; return its model."""
        at = self.now - days * DAY
        config = {"tracking": {"enabled": shown}}
        known = replace(header(plan(stage("s")), name), config=config, created=at)
        self.database.create(known, at)
        model = self._artifact(f"{name}/s/1")
        self._artifact(f"checkpoints/{name}/s/step-0000000001-0001-0001")
        self.store.mark(f"logs/{name}/s/1/9.jsonl", "lines")
        ended = ends or (AttemptSucceeded("s", 1, model), RunSucceeded())
        self.database.append(name, 1, (RunStarted(1), AttemptStarted("s", 1, "a"), *ended), at)
        self.database.add_points(name, "s", 1, [Points(1, {"loss": 1.0}, at)])
        self.database.remember(f"key of {name}", Succeeded(model), name)
        return model

    def _artifact(self, name: str) -> ArtifactRef:
        folder = self.store.scratch(name)
        (folder / "weights").write_text(name * 100)
        return self.store.commit(folder, name, {})

    def left(self) -> set[str]:
        """Return what the store has: runs, and whose checkpoints and logs."""
        below = {f"{kind} of {name}" for kind in BESIDE for name in self.store.names(kind)}
        top = {path.name for path in (self.folder / "artifacts").iterdir() if path.name[0] != "."}
        return below | (top - BESIDE)

    @property
    def runs(self) -> set[str]:
        return {known.run for known in self.database.runs()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where this machine's cache is
    monkeypatch.delenv("ORCHESTRATOR_DATABASE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home(tmp_path)


def all_of(name: str) -> set[str]:
    return {name, f"checkpoints of {name}", f"logs of {name}"}


def test_a_dry_run_says_what_would_go_and_removes_nothing(home: Home) -> None:
    home.run("old", 45)
    home.run("young", 5)
    change = collect(ALL, EVERYTHING)
    (line,) = change.what.splitlines()
    assert line.startswith("of run old (succeeded, 45 days ago): checkpoints 0.0 MB, artifacts 0.")
    assert line.endswith("1 points and pieces of logs, its record")
    assert home.left() == all_of("old") | all_of("young")
    assert home.runs == {"old", "young"}
    assert collect(replace(ALL, days=60.0), EVERYTHING).what == "nothing is to be removed"


def test_an_old_run_goes_with_all_that_it_has_and_others_keep_theirs(home: Home) -> None:
    home.run("old", 45)
    home.run("young", 5)
    done = collect(ALL, EVERYTHING).make()
    assert (done.runs, done.size > 0, done.rows > 0) == (1, True, True)
    assert (home.left(), home.runs) == (all_of("young"), {"young"})
    assert home.database.recall("key of old") is None
    assert home.database.recall("key of young") is not None
    assert collect(ALL, EVERYTHING).make().runs == 0, "there is nothing left"


def test_a_kind_that_is_not_asked_for_stays(home: Home) -> None:
    home.run("old", 45)
    collect(ALL, [Kind.CHECKPOINTS]).make()
    assert (home.left(), home.runs) == ({"old", "logs of old"}, {"old"})
    assert home.database.count_telling("old") == 1
    collect(ALL, [Kind.POINTS]).make()
    assert (home.left(), home.database.count_telling("old")) == ({"old"}, 0)
    collect(ALL, [Kind.ARTIFACTS]).make()
    assert (home.left(), home.runs) == (set(), {"old"})
    assert home.database.recall("key of old") is None


def test_a_run_that_can_be_resumed_keeps_its_checkpoints_unless_that_is_asked(home: Home) -> None:
    home.run("failed", 900, ends=FAILED)
    assert collect(ALL, EVERYTHING).what == "nothing is to be removed"
    collect(replace(ALL, resumable=True), EVERYTHING).make()
    assert (home.left(), home.runs) == (set(), set())


def test_what_a_live_endpoint_serves_stays_and_goes_once_that_is_retired(home: Home) -> None:
    model = home.run("old", 45)
    home.run("deployer", 400)
    served = deployment("chat", model=model, run="deployer")
    events = [RevisionAdded(1, served), RevisionReady(1)]
    home.database.follow(home.database.endpoint("chat"), events, home.now)
    collect(ALL, EVERYTHING).make()
    assert home.runs == {"old", "deployer"}
    assert home.left() == {"old"} | all_of("deployer"), "its way there is not needed"
    home.store.fetch(model)


def test_what_a_rollback_would_deploy_anew_stays_while_its_endpoint_is_served(home: Home) -> None:
    models = [home.run(f"model-{number}", 400 - number) for number in (1, 2, 3)]
    for number, model in enumerate(models, start=1):
        home.run(f"deployer-{number}", 300 - number)
        served = deployment("chat", model=model, run=f"deployer-{number}", revision=number)
        happened: list[EndpointEvent] = [RevisionAdded(number, served), RevisionReady(number)]
        happened += [SharesMoved({number: 100}, "by hand")]
        happened += [RevisionRetired(number - 1, "another leads")] if number > 1 else []
        home.database.follow(home.database.endpoint("chat"), happened, home.now)
    collect(ALL, EVERYTHING).make()
    assert home.runs == {"model-2", "deployer-2", "model-3", "deployer-3"}
    before = home.database.endpoint("chat").before
    assert before is not None
    assert run_of(home.database.endpoint("chat"), before.number).header.run == "deployer-2"
    home.store.fetch(models[1])
    last = [RevisionRetired(3, "by hand")]
    home.database.follow(home.database.endpoint("chat"), last, home.now)
    collect(ALL, EVERYTHING).make()
    assert home.runs == set()


class Registered:
    """A registry, which may be away."""

    def __init__(self, *versions: ModelVersion, away: bool = False) -> None:
        self._versions, self._away = versions, away

    def versions(self, model: str = "") -> Sequence[ModelVersion]:
        if self._away:
            raise TrackingError("MLflow is away")
        return self._versions

    def close(self) -> None:
        pass


def test_a_model_with_an_alias_never_goes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    champion, plain = home.run("champion", 900, shown=True), home.run("plain", 800, shown=True)
    first, second = ({KEY: key_of(model, "a")} for model in (champion, plain))
    versions = [
        ModelVersion(name="chat", number=1, tags=first, aliases=("champion",)),
        ModelVersion(name="chat", number=2, tags=second),
    ]
    registry = SimpleNamespace(asked=Registered(*versions))
    monkeypatch.setattr(wiring, "registry", lambda *_, **__: registry.asked)
    collect(ALL, EVERYTHING).make()
    assert (home.left(), home.runs) == ({"champion"}, {"champion"})
    registry.asked = Registered(away=True)
    with pytest.raises(TrackingError):
        collect(ALL, EVERYTHING)


def test_code_that_was_shipped_to_a_run_goes_with_it_or_alone(home: Home, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("def work(ctx): ...")
    files = [("job.py", tmp_path / "job.py")]
    names = {"old": 45, "older": 90, "young": 5}
    for name, days in names.items():
        home.run(name, days)
        code = ShippedCode(home.store.archive(artifact_paths.code(f"key-of-{name}"), files))
        again = RunReopened(reason="other code", stages=("s",), code=code)
        (*_, last) = home.database.events(name)
        ends = (again, AttemptStarted("s", 2, "a"), AttemptSucceeded("s", 2, None), RunSucceeded())
        home.database.append(name, last.seq + 1, ends, home.now - days * DAY)
        mark = json.dumps({"at": home.now, "home": "that of a host that is no more"})
        home.store.mark(artifact_paths.user_of_code(f"key-of-{name}", name), mark)
    said = collect(replace(ALL, days=60.0), [Kind.CODE])
    assert said.what == "code key-of-older: 0.0 MB, which no run has that stays"
    assert said.make().size > 0
    assert home.store.names(artifact_paths.CODE) == ["key-of-old", "key-of-young"]
    assert home.runs == {"old", "older", "young"}
    collect(ALL, [Kind.RUNS]).make()
    assert home.store.names(artifact_paths.CODE) == ["key-of-young"]
    marked = [list(home.store.names(artifact_paths.users_of_code(f"key-of-{n}"))) for n in names]
    assert marked == [[], [], ["young"]]


def test_what_mlflow_shows_goes_where_that_is_asked_and_before_the_record(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.run("old", 45, shown=True)
    monkeypatch.setattr(wiring, "registry", lambda *_, **__: Registered())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError):
        collect(ALL, EVERYTHING, tracked=True)
    collect(ALL, [Kind.POINTS], tracked=True).make()
    assert home.runs == {"old"}
    collect(ALL, EVERYTHING).make()
    assert home.runs == set()


@pytest.mark.parametrize(
    "uri",
    ["", "art", "./art", "/art", "file:///art", "local:///art", "simplecache::file:///art"],
)
def test_storage_of_another_machine_is_left_to_that(home: Home, uri: str) -> None:
    home.run("old", 45)
    old = home.database.header("old")
    config = {**old.config, "storage": {"uri": uri}}
    far = replace(old, run="far", tags={"orchestrator.host": "h9"}, config=config)
    home.database.create(far, home.now)
    ends = (AttemptStarted("s", 1, "a"), AttemptSucceeded("s", 1, None), RunSucceeded())
    home.database.append("far", 1, (RunStarted(1), *ends), home.now - 50 * DAY)
    collect(ALL, EVERYTHING).make()
    assert home.runs == {"far"}


@pytest.mark.parametrize("own", [True, False])
def test_the_folder_of_another_home_is_left_to_that_whatever_its_host_is_called(
    home: Home, *, own: bool
) -> None:
    home.run("old", 45)
    old = home.database.header("old")
    whose = wiring.home_id(wiring.home()) if own else "another"
    tags = {driving.HOST: wiring.host(), driving.HOME: whose}
    home.database.create(replace(old, run="new", tags=tags), home.now)
    ends = (AttemptStarted("s", 1, "a"), AttemptSucceeded("s", 1, None), RunSucceeded())
    home.database.append("new", 1, (RunStarted(1), *ends), home.now - 50 * DAY)
    collect(ALL, EVERYTHING).make()
    assert home.runs == (set() if own else {"new"})


def test_what_this_machine_has_fetched_and_long_not_used_goes(home: Home) -> None:
    filled = NodeCache(cache_root()).folder(Manifest({}, {}), Path.mkdir)
    stamp = filled.with_name(f".{filled.name}.verified")
    os.close(node_cache._held.pop(stamp.with_suffix(".used")))
    os.utime(stamp, (1.0, 1.0))
    collect(ALL, [Kind.RUNS]).make()
    assert filled.exists()
    collect(ALL, [Kind.CACHES]).make()
    assert not filled.exists()
