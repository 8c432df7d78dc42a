"""Which runs a reaper has go on, and what becomes of those that it hands over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.controller.reaper import Declined
from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptPlaced,
    AttemptSaved,
    AttemptStarted,
    Event,
    RunStarted,
)
from orchestrator.service import driving
from orchestrator.service.driving.request import MACHINE
from orchestrator.service.take_overs import SECONDS_BETWEEN, TakeOvers
from orchestrator.supervisor.record import wait

FOREIGN = "cluster.address=10.9.9.9:6379"
BY = RunStarted(2, by="the reaper of h1")


@dataclass
class HomeWithRun:
    """A home with one run, and who is asked to drive it on."""

    home: Path
    run: str = ""
    asked: list[driving.DriveRequest] = field(default_factory=list)
    refuses: bool = False
    between: float = SECONDS_BETWEEN
    goes: threading.Event = field(default_factory=threading.Event)
    told: list[str] = field(default_factory=list)

    def add(self, *overrides: str, **tags: str) -> None:
        """Add a run that was launched here, but for what `tags` say of its host."""
        words = ["pipeline=noop", "tracking=none", "storage.uri=s3://bucket/x", *overrides]
        settings, plan = wiring.planned(words)
        header = driving.new_header(settings, plan, home=self.home)
        own = {"host": driving.HOST, "machine": MACHINE, "home": driving.HOME}
        header = replace(
            header, tags={**header.tags, **{own[name]: tag for name, tag in tags.items()}}
        )
        store = wiring.database(self.home)
        store.create(header, header.created)
        self.run = header.run
        self.happens(RunStarted(1))

    def happens(self, *events: Event) -> None:
        store = wiring.database(self.home)
        store.append(self.run, len(store.events(self.run)) + 1, events, store.now())

    def hand_over(self, request: driving.DriveRequest) -> None:
        self.asked.append(request)
        assert self.goes.wait(10.0)
        if self.refuses:
            raise ClusterError("its job server does not answer")

    @property
    def take_overs(self) -> Callable[[], Declined | None]:
        store = wiring.database(self.home)
        ours = TakeOvers(self.home, self.told.append, self.hand_over, between=self.between)

        def look() -> Declined | None:
            events = store.events(self.run)
            run: Run = fold(store.header(self.run), ((item.at, item.event) for item in events))
            return ours(run, events)

        return look


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HomeWithRun:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return HomeWithRun(tmp_path)


def test_a_run_is_handed_over_once_and_is_on_its_way_until_another_controller_has_it(
    place: HomeWithRun,
) -> None:
    place.add(FOREIGN)
    look = place.take_overs
    assert look() is None
    assert look() is None
    place.goes.set()
    assert wait(lambda: look() is None, 5.0)
    (request,) = place.asked
    assert request.header.run == place.run
    assert request.by == f"the reaper of {wiring.host()}"
    assert not request.by_force, "one that lives keeps it"
    place.happens(BY)
    assert look() is None
    assert len(place.asked) == 2, "that one has died too"


def test_what_can_not_be_handed_over_from_here_is_left_to_others(place: HomeWithRun) -> None:
    place.add(FOREIGN)
    place.refuses = True
    place.goes.set()
    look = place.take_overs
    look()
    assert wait(lambda: look() is not None, 5.0)
    declined = look()
    assert declined
    assert declined.others
    assert declined.reason == "it could not be handed over: its job server does not answer"
    assert len(place.asked) == 1


def test_a_cluster_that_did_not_take_a_run_is_asked_again_as_its_head_may_come_back(
    place: HomeWithRun,
) -> None:
    place.add(FOREIGN, "cluster.patience=500")
    place.refuses, place.between = True, 0.5
    place.goes.set()
    look = place.take_overs
    heard: list[Declined] = []
    assert wait(lambda: heard.extend(filter(None, [look()])) or bool(heard), 5.0)
    assert heard[0].patience > 500
    place.refuses = False
    before = len(place.asked)
    assert wait(lambda: look() is None and len(place.asked) > before, 10.0)
    taken = len(place.asked)
    assert not wait(lambda: look() is not None or len(place.asked) > taken, 1.0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "its cluster was started for its own commands"),
        (("cluster=local",), "its cluster was started for its own commands"),
        ((FOREIGN, "cluster.take_overs=0"), "cluster.take_overs is 0"),
    ],
)
def test_runs_that_do_not_go_on_by_themselves(
    place: HomeWithRun, words: tuple[str, ...], why: str
) -> None:
    place.add(*words)
    assert place.take_overs() == Declined(why, others=False)
    assert place.asked == []


def test_a_run_that_somebody_has_cancelled_does_not_go_on(place: HomeWithRun) -> None:
    place.add(FOREIGN)
    wiring.database(place.home).request_cancel(place.run)
    assert place.take_overs() == Declined("somebody has asked for its end", others=False)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:6379", "localhost:6379", "[::1]:6379", "127.0.1.1:6379", "0.0.0.0:6379"],
)
def test_a_cluster_that_is_named_by_loopback_is_that_of_the_host_that_launched(
    place: HomeWithRun, address: str
) -> None:
    words = (f"cluster.address='{address}'", "storage.shared=true")
    place.add(*words)
    assert place.take_overs() is None
    place.add(*words, host="another")
    assert place.take_overs() == Declined(f"{address!r} is on another host", others=True)


def test_a_host_of_the_same_name_is_another_one(place: HomeWithRun) -> None:
    words = ("cluster.address='127.0.0.1:6379'", "storage.shared=true")
    place.add(*words, machine="same/another boot")
    assert place.take_overs() is None, "it is the same home, after a restart of its host"
    place.add(*words, machine="same/another boot", home="another")
    assert place.take_overs() == Declined("'127.0.0.1:6379' is on another host", others=True)


ANOTHER = {"machine": "same/another boot", "home": "another"}


@pytest.mark.parametrize("address", ["head:6379", "http://head:8265"])
def test_a_name_of_a_site_with_hosts_of_the_same_names_is_of_that_site_alone(
    place: HomeWithRun, address: str
) -> None:
    words = (f"cluster.address='{address}'", "storage.shared=true")
    place.add(*words, **ANOTHER)
    declined = place.take_overs()
    assert declined is not None
    assert declined.others
    assert declined.reason == (
        f"it was launched on another host that is called {wiring.host()!r}, whose {address!r}"
        " may be another cluster than the one that is called so here"
    )
    place.add(*words)
    assert place.take_overs() is None
    place.add(*words, **{**ANOTHER, "host": "another"})
    assert place.take_overs() is None, "a host of the same cluster"


@pytest.mark.parametrize("address", ["10.9.9.9:6379", "head.a.example:6379", "[fd00::9]:6379"])
def test_an_address_that_means_one_place_is_taken_over_by_a_host_of_any_name(
    place: HomeWithRun, address: str
) -> None:
    place.add(f"cluster.address='{address}'", "storage.shared=true", **ANOTHER)
    assert place.take_overs() is None


def test_a_cluster_whose_address_has_the_figures_of_loopback_in_it_is_anybodys(
    place: HomeWithRun,
) -> None:
    place.add("cluster.address=h127.0.0.1.example:6379", "storage.shared=true", host="a third")
    assert place.take_overs() is None


def test_a_run_whose_secrets_are_not_here_is_left_to_others(
    place: HomeWithRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "xyzzy")
    place.add(FOREIGN, "+pipeline.stages.noop.secrets={TOKEN: A_SECRET}")
    monkeypatch.delenv("A_SECRET")
    declined = place.take_overs()
    assert declined
    assert declined.others
    assert "variable 'A_SECRET' has no value here" in declined.reason


def test_a_run_that_does_not_get_on_is_left_after_a_few_times_and_says_so(
    place: HomeWithRun,
) -> None:
    place.add(FOREIGN, "cluster.take_overs=2")
    place.happens(BY, replace(BY, epoch=3))
    why = "it went on 2 times by itself, and did not get on"
    assert place.take_overs() == Declined(why, others=False)
    place.happens(AttemptStarted("noop", 1, place_of(place)), AttemptPlaced("noop", 1, ("n1",)))
    assert place.take_overs() == Declined(why, others=False), "to begin is no progress"
    place.happens(AttemptSaved("noop", 1, 5))
    assert place.take_overs() is None, "a checkpoint is"


def test_somebody_who_resumes_a_run_has_it_go_on_by_itself_again(place: HomeWithRun) -> None:
    place.add(FOREIGN, "cluster.take_overs=1")
    place.happens(BY)
    assert place.take_overs() is not None
    place.happens(RunStarted(3))
    assert place.take_overs() is None


def place_of(place: HomeWithRun) -> str:
    store = wiring.database(place.home)
    return store.header(place.run).plan["noop"].pools[0]
