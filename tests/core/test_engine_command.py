"""What starts an engine server: its argv, its variables, its files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.spec.engine_command import (
    ReplicaPart,
    argv_of,
    chips_of,
    environment_of,
    files_of,
    filled,
    flags,
    joining_of,
)
from orchestrator.core.spec.engines import Maker, Nodes, Parallel
from tests.core.engine_values import HOST, SPEC

PLACES = {
    "python": "/py",
    "host": "::1",
    "port": "7",
    "model": "/m",
    "name": "chat",
    "devices": "4",
    "files": "/f",
}


def test_the_command_has_its_places_filled_in_and_a_users_options_go_over_all_others() -> None:
    assert argv_of(SPEC, HOST, {"eager": False, "max_len": 9}, PLACES) == [
        "/py", "-m", "fast", "--port=7", "/m", "--as", "chat",
        "--log", "yes", "--max-len", "9", "--tp", "4",
    ]  # fmt: skip
    assert environment_of(SPEC, HOST, PLACES) == {"OFFLINE": "1", "CHIPS": "4", "THREADS": "2"}


OVER = replace(
    SPEC,
    nodes=Nodes(
        options={"node_rank": "{rank}", "nnodes": "{nodes}", "at": "{leader}:{leader_port}"},
        environment={"ADDRESS": "{host}", "BY": "{interface}", "SECOND": "{leader_port_2}"},
        follower=("{python}", "follow"),
        following={"headless": True},
    ),
)


def part_of(rank: int) -> ReplicaPart:
    return ReplicaPart(rank=rank, nodes=2, leader="10.0.0.1", ports=(5, 6))


def test_on_several_nodes_one_process_leads_and_the_others_follow_it() -> None:
    led, following = (
        argv_of(OVER, HOST, {}, {**PLACES, **part_of(rank).places("eth0")}, part_of(rank))
        for rank in (0, 1)
    )
    joins = ["--nnodes", "2", "--at", "10.0.0.1:5"]
    assert led[7:] == ["--log", "yes", "--eager", "--tp", "4", "--node-rank", "0", *joins]
    assert following[:2] == ["/py", "follow"]
    assert following[-7:] == ["--node-rank", "1", *joins, "--headless"]
    assert argv_of(OVER, HOST, {}, PLACES) == argv_of(SPEC, HOST, {}, PLACES), "alone it is"
    same = replace(OVER, nodes=Nodes(options={"at": "{leader}"}))
    places = {**PLACES, **part_of(1).places("")}
    assert argv_of(same, HOST, {}, places, part_of(1))[:3] == ["/py", "-m", "fast"]
    other = replace(OVER, makers={"cpu": Maker(follower=("there",))})
    assert argv_of(other, HOST, {}, places, part_of(1))[0] == "there"


def test_processes_on_several_nodes_are_told_how_they_meet_but_for_what_is_unknown() -> None:
    places = {**PLACES, **part_of(1).places("")}
    assert joining_of(OVER, places, part_of(1)) == {"ADDRESS": "::1", "SECOND": "6"}
    assert joining_of(OVER, PLACES, ReplicaPart()) == joining_of(SPEC, places, part_of(1)) == {}
    assert ReplicaPart().places("eth0") == {}
    assert chips_of(8, 2) == {"devices": "8", "chips": "0, 1, 2, 3"}


def test_options_are_written_as_flags() -> None:
    given = {"a": 1, "b": True, "c": False, "d": None, "e": [1, 2], "f": {"g": "h"}}
    assert flags(given) == ["--a", "1", "--b", "--e", "1", "2", "--f", '{"g": "h"}']
    odd = {"a": "-x y", "b": -1, "c": [], "d": [{"name": "l"}, True], "e": ""}
    assert flags(odd) == ["--a=-x y", "--b=-1", "--d", '{"name": "l"}', "true", "--e", ""]


def test_what_is_false_is_said_where_the_engine_has_a_word_for_that() -> None:
    """Its default may be true: who says false and is not heard gets another engine."""
    assert flags({"cache": False, "eager": True, "x": None}, "no-") == ["--no-cache", "--eager"]
    assert flags({"cache": False}) == []


def test_texts_of_an_update_are_filled_in_at_any_depth() -> None:
    body = {"rpc": "load", "kwargs": {"path": "{folder}"}, "names": ["{version}"], "n": 1}
    assert filled(body, {"folder": "/w", "version": "v2"}) == {
        "rpc": "load",
        "kwargs": {"path": "/w"},
        "names": ["v2"],
        "n": 1,
    }


OF_FILE = replace(
    SPEC,
    options_file="c.json",
    files={"c.json": '{{"name": "{name}", "models": [{{"chips": [{chips}]}}]}}'},
    parallel=Parallel(tensor="models.0.world"),
)


def file_of(**options: Any) -> Any:
    places = {**PLACES, **chips_of(4), "name": 'a"b', "key": "k"}
    named = {name.replace("__", "."): value for name, value in options.items()}
    return json.loads(files_of(OF_FILE, HOST, named, places)["c.json"])


def test_options_of_an_engine_with_a_file_go_where_their_names_say() -> None:
    assert file_of(models__0__most=7, new__deep=True) == {
        "name": 'a"b',
        "models": [{"chips": [0, 1, 2, 3], "world": 4, "most": 7}],
        "new": {"deep": True},
        "log": "yes",
        "eager": True,
    }
    assert "--world" not in " ".join(argv_of(OF_FILE, HOST, {"a": 1}, PLACES))


@pytest.mark.parametrize("name", ["models__1__most", "models__x", "name__of"])
def test_an_option_that_has_no_place_in_the_file_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="has no place in the engine's file"):
        file_of(**{name: 7})
