"""What nodes tell of themselves is judged: what is in the way is named with what to type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.messages import NodeReport
from orchestrator.service.check import Check
from orchestrator.service.cluster_checks import SoftwareHere, judged

VERSIONS = {"Python": "3.11.7", "Ray": "2.60.0", "orchestrator": "0.2.0"}
CODE = {"orchestrator": "0.2.0 (0123456789ab)", "jobs": " (89abcdef0123)"}
HERE = SoftwareHere(VERSIONS, CODE)
FINE = NodeReport(
    node="h1",
    pool="hopper",
    host="10.0.0.2",
    versions=VERSIONS,
    code=CODE,
    ahead=-0.04,
    free={"/tmp": 40 * 10**9, "/dev/shm": 10**9},  # noqa: S108 - as a node tells
    interface="eth0",
)


def test_nodes_that_are_fine_are_one_line_a_pool() -> None:
    nodes = [FINE, replace(FINE, node="h2", ahead=0.2), replace(FINE, node="h9", pool="")]
    found = list(judged(nodes, HERE, ("hopper",)))
    assert [(check.check, check.status) for check in found] == [
        ("other nodes", "ok"),
        ("pool hopper", "ok"),
    ]
    assert found[1].finding.startswith("h1 (10.0.0.2 on eth0), h2 (10.0.0.2 on eth0): versions")
    assert "clocks within 0.2 s, 40 GB free at least" in found[1].finding


def test_a_database_that_was_reached_and_not_opened_is_told_in_the_line_of_the_pool() -> None:
    untried = {"database": "ORCHESTRATOR_DATABASE is not set there"}
    nodes = [replace(FINE, untried=untried), replace(FINE, node="h2", untried=untried)]
    (check,) = judged(nodes, HERE, ("hopper",))
    assert check.status == "ok"
    but = "is seen that is looked at; reached and not opened: the database (ORCHESTRATOR_DATABASE"
    assert but in check.finding
    assert check.finding.count("not opened") == 1


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"silent": "it does not answer within 60 s"}, "error", "60 s; see `ray status`"),
        (
            {"versions": {**VERSIONS, "orchestrator": "0.1.0"}},
            "error",
            "has orchestrator 0.1.0, this machine 0.2.0; install orchestrator 0.2.0 there",
        ),
        ({"versions": {**VERSIONS, "orchestrator": ""}}, "error", "has no orchestrator, this"),
        (
            {"code": {**CODE, "orchestrator": "0.2.0 (ba9876543210)"}},
            "error",
            "0.2.0 (0123456789ab): other files; `pip install --force-reinstall WHEEL` there",
        ),
        ({"code": {**CODE, "jobs": "none"}}, "error", "its jobs is none, that of this machine"),
        ({"ahead": 63.0}, "warning", "63.0 s ahead of this machine's; set it by `chronyc"),
        ({"ahead": -63.0}, "warning", "63.0 s behind this machine's"),
        ({"free": {"/tmp": 10**9}}, "warning", "'/tmp' has 1.0 GB free, of 5 GB"),  # noqa: S108 - as above
        ({"free": {"/dev/shm": 10**8}}, "warning", "has 0.1 GB free, of 0.5 GB"),  # noqa: S108 - as above
        ({"lacking": {"storage": "403"}}, "error", "does not see the storage: 403; give its"),
        ({"lacking": {"database": "no route"}}, "error", "database: no route; let it reach"),
    ],
)
def test_what_is_in_the_way_on_a_node_is_told(
    change: dict[str, object], status: str, said: str
) -> None:
    (check,) = judged([replace(FINE, **change)], HERE, ())  # type: ignore[arg-type]
    assert (check.check, check.status) == ("node h1", status)
    assert said in check.finding


def test_a_pool_without_nodes_is_told_with_how_to_start_one() -> None:
    assert list(judged([], HERE, ("atlas",))) == [
        Check(
            "pool atlas",
            "warning",
            "no node carries the label pool=atlas; start one by "
            "`ray start --address=HEAD:PORT --labels pool=atlas ...`",
        )
    ]
