"""A dry run prints the steps, and changes nothing: no row, no file, no service."""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.cli import parser
from orchestrator.core.endpoints.life import (
    EndpointEvent,
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    TrafficMoved,
)
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import RunFailed, RunStarted, StageFailed
from orchestrator.core.spec.outside_servers import Outside
from tests.build import deployment
from tests.conftest import Command
from tests.listing import listing

FILE = ".orchestrator/events.db"
EMPTY = "postgresql://nobody@127.0.0.1:1/empty"
LOCAL = ("pipeline=noop", "cluster=local", "tracking=none")
GATED = "+pipeline.stages.noop.gate={kind: approval, target: the labels}"
SERVING = "r2-served"
GATE = "noop-gated"
ENDED = "noop-failed"
LIMIT = "pipeline.stages.noop.limits.cost=7"
# What is typed for each verb that has the flag, and what its steps say.
CASES: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "launch": (
        (LOCAL, "run pipeline noop"),
        (("-m", "seed=1,2", *LOCAL), "run pipeline noop\n  run pipeline noop"),
        (("--detach", "pipeline=noop"), "hand over to a Ray job pipeline noop"),
    ),
    "switch": (
        (("chat", "pool=ascend"), "qualify ascend to serve: no verdict on it holds"),
        (("chat", "pool=ascend", "--unqualified"), "deploy r2.r1, wait until"),
        ((SERVING, "roles.serve=nvidia", "--no-qualify"), "deploy r2.r1, wait until"),
    ),
    "deploy": (
        ((SERVING,), "deploy r2.r1, wait until all its replicas answer"),
        (("new", "--address", "SERVER", "--model", "llama"), "and give it all traffic"),
        (("far", "--address", "SERVER", "--model", "llama"), "add r3 of far, the server at"),
    ),
    "rollback": (
        (("far",), "give all traffic of far to r1 on http://one/v1"),
        (("chat",), "deploy r2.r1, wait until all its replicas answer"),
    ),
    "traffic": ((("far", "r1=50,r2=50", "shadow=r1"), "far: r1 50 %, r2 50 %, shadow r1"),),
    "undeploy": (
        (("far",), "retire all of far: r1, r2"),
        (("far", "r1"), "retire r1 of far"),
    ),
    "keys": (
        (("add", "bob", "--model", "far"), "add key bob, which opens far"),
        (("revoke", "ann"), "revoke key ann"),
        (("require", "off"), "let everybody in, without a key"),
    ),
    "resume": (
        ((GATE,), f"drive on run {GATE}"),
        ((GATE, "--take-over"), "taking it from nobody: no controller lives"),
        ((GATE, LIMIT), f"change limits, begin no stage again\n  set {LIMIT}"),
        ((ENDED, LIMIT), f"begin stage noop again\n  set {LIMIT}\n  drive on run {ENDED}"),
        ((SERVING, "-d"), f"hand over to a Ray job run {SERVING}"),
    ),
    "rerun": (((ENDED, "noop"), "begin stage noop again, without its checkpoints"),),
    "cancel": (((GATE,), f"have run {GATE} ended by this command"),),
    "approve": (((GATE, "noop"), f"approve stage noop of run {GATE}"),),
    "pools": (
        (("drain", "nvidia", "--reason", "repair"), "empty pool nvidia"),
        (("undrain", "ascend"), "use pool ascend again"),
    ),
    "qualify": ((("nvidia", "cluster=local", "tracking=none"), "the checks of pool nvidia to"),),
    "up": (((), "have the cluster up with pools nvidia, ascend, and MLflow"),),
    "down": (((), "nothing is running"),),
    "gc": (((), "MLflow is not up, and a dry run starts nothing"),),
    "db": ((("copy", FILE, EMPTY), f"copy all of {FILE} to postgresql"),),
    "promote": ((("far",), "MLflow is not up, and a dry run starts nothing"),),
    "update": ((("chat", "chat", "2"), "MLflow is not up, and a dry run starts nothing"),),
}
EACH = [(verb, words, says) for verb, cases in CASES.items() for words, says in cases]
HARMLESS = ("rollback", "traffic", "undeploy", "keys", "approve", "pools")


planned = cache(wiring.planned)  # composed once for all


@pytest.fixture
def home(tmp_path: Path, within: Command) -> Path:
    """A home with endpoints, a key, a drain, and runs: served, at a gate, failed."""
    at = tmp_path / ".orchestrator"
    at.mkdir()
    endpoints, events = wiring.database(at), wiring.database(at)
    runs = {SERVING: ("pipeline=r2",), GATE: (*LOCAL, GATED), ENDED: LOCAL}
    for name, overrides in runs.items():
        found, made = planned(overrides)
        events.create(RunHeader(run=name, plan=made, config=found.resolved), 1.0)
        events.append(name, 1, [RunStarted(1)], 1.0)
    events.append(ENDED, 2, [StageFailed("noop", "it broke"), RunFailed("it broke")], 1.0)
    events.drain("ascend", "repair")

    def happens(endpoint: str, *what: EndpointEvent) -> None:
        endpoints.follow(endpoints.endpoint(endpoint), what, 1.0)

    for number, where in ((1, "http://one/v1"), (2, "http://two/v1")):
        happens("far", RevisionAdded(number, outside=Outside(address=where, model="llama")))
        happens("far", RevisionReady(number), TrafficMoved({number: 100}, "first"))
    for number, pool in ((1, "nvidia"), (2, "ascend")):
        ours = deployment("chat", pool_name=pool, revision=number, run=SERVING)
        happens("chat", RevisionAdded(number, deployment=ours), RevisionReady(number))
        happens("chat", TrafficMoved({number: 100}, "first"))
    happens("chat", RevisionRetired(1, "replaced"))
    assert within("keys", "add", "ann").returncode == 0
    return at


@pytest.fixture
def server() -> Iterator[str]:
    with listing(["llama"]) as address:
        yield address


def contents(folder: Path) -> dict[str, str]:
    """Return all that lies in a folder: files by their hash, the database by its rows."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.startswith("events.db") or path.name == "code.json":  # digests, to be quick
            continue
        raw = path.read_bytes() if path.is_file() else b"a folder"
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(raw).hexdigest()
    database = sqlite3.connect(folder / ".orchestrator" / "events.db")
    try:
        return {**found, "the database": "\n".join(database.iterdump())}
    finally:
        database.close()


def flagged() -> set[str]:
    """Return the verbs that have the flag."""
    verbs = next(a for a in parser.build()._actions if isinstance(a, argparse._SubParsersAction))
    return {name for name, one in verbs.choices.items() if "--dry-run" in one.format_help()}


def test_every_verb_with_the_flag_is_tried() -> None:
    assert flagged() == set(CASES)


@pytest.mark.parametrize(("verb", "words", "says"), EACH)
def test_a_dry_run_of_any_verb_changes_nothing(
    within: Command, home: Path, server: str, verb: str, words: tuple[str, ...], says: str
) -> None:
    typed = [server if word == "SERVER" else word for word in words]
    before = contents(home.parent)
    done = within(verb, *typed, "--dry-run")
    assert says in done.stdout + done.stderr
    assert done.returncode == (1 if verb in {"gc", "promote", "update"} else 0), done.stderr
    assert contents(home.parent) == before


@pytest.mark.parametrize(("verb", "words", "says"), [one for one in EACH if one[0] in HARMLESS])
def test_the_same_without_the_flag_changes_something(
    within: Command, home: Path, verb: str, words: tuple[str, ...], says: str
) -> None:
    if (verb, words) == ("rollback", ("chat",)):
        return  # which would start a cluster
    before = contents(home.parent)["the database"]
    done = within(verb, *words)
    assert done.returncode == 0, done.stderr
    assert contents(home.parent)["the database"] != before


@pytest.mark.parametrize("words", [("resume", ENDED), ("rerun", ENDED, "noop")])
def test_what_cannot_be_detached_is_refused_before_the_run_is_opened_again(
    within: Command, home: Path, words: tuple[str, ...]
) -> None:
    before = contents(home.parent)
    done = within(*words, "--detach")
    assert done.returncode == 2
    assert "can't be detached" in done.stderr
    assert contents(home.parent) == before


def test_a_dry_run_in_a_new_folder_leaves_it_as_it_is(within: Command, tmp_path: Path) -> None:
    for words in (LOCAL, ("-m", "seed=1,2", *LOCAL)):
        assert within("launch", *words, "--dry-run").returncode == 0
    assert within("up", "--dry-run").returncode == 0
    assert list(tmp_path.iterdir()) == []
