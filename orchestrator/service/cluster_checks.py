"""Check a cluster of one's own: its head, its nodes, and what each must see.

Every finding that is in the way says what to type.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from orchestrator import wiring
from orchestrator.core.errors import OrchestratorError
from orchestrator.core.settings import Settings
from orchestrator.messages import NodeReport
from orchestrator.service.check import GB, LEAST_FREE_GB, LEAST_SHARED_MEMORY_GB, Check

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - Ray's object store lives there
MOST_SECONDS_AHEAD = 2.0
OTHERS = "other nodes"


def checks(settings: Settings, *, named: bool) -> Iterator[Check]:
    """Check the cluster that `settings` or the environment name, from here and from its nodes.

    Unless the config is one that the user has `named`, its storage and pools are not looked at.
    """
    address = wiring.cluster_address(settings)
    if "://" in address:  # of a job server: nothing else can be asked
        yield from _job_server(settings)
        hint = "name HOST:PORT of the head to have it and its nodes looked at"
        yield Check("nodes", "warning", f"{address!r} takes detached runs alone; {hint}")
        return
    try:
        facts = wiring.head_facts(settings)
    except OrchestratorError as error:
        yield Check("cluster", "error", str(error))
        return
    if facts is None:
        what = "what listens there is no head of Ray, or too busy to answer as one"
        yield Check("cluster", "error", f"{what}; check cluster.address or RAY_ADDRESS")
        return
    seen = f"{facts.address}: Ray {facts.ray}, Python {facts.python}, {len(facts.nodes)} nodes"
    yield Check("cluster", "ok", seen)
    yield from _job_server(settings)
    versions, elsewhere = wiring.other_versions(facts), wiring.elsewhere(facts)
    if versions:
        yield Check("versions", "error", f"the cluster runs {versions}; install the same here")
    if elsewhere:
        yield Check("nodes", "warning", f"{elsewhere}; nodes are asked by `doctor` on one of them")
    elif not versions:
        yield from _nodes(settings, named=named)


def _job_server(settings: Settings) -> Iterator[Check]:
    try:
        yield Check("job server", "ok", f"answers at {wiring.job_server(settings)}")
    except OrchestratorError as error:
        yield Check("job server", "warning", f"{error}; `launch --detach` needs it")


def _nodes(settings: Settings, *, named: bool) -> Iterator[Check]:
    """Ask each node, which has to read a mark that is written to the storage here."""
    home, mark = wiring.home(), f"doctor/{secrets.token_hex(8)}" if named else ""
    storage = wiring.storage_uri(settings, home)
    try:
        store = wiring.artifact_store(storage)
        if mark:
            store.mark(mark, mark)
    except OrchestratorError as error:
        yield Check("storage", "error", str(error))
        mark = ""
    try:
        reports = wiring.node_reports(settings, home, mark)
    except OrchestratorError as error:
        yield Check("nodes", "error", str(error))
        return
    finally:
        if mark:
            with suppress(OrchestratorError):
                store.remove(mark)
    here = SoftwareHere(wiring.versions(), wiring.shared_code())
    yield from judged(reports, here, tuple(settings.fleet.pools) if named else ())
    if not named:
        hint = "name your config: orchestrator doctor --config-dir DIR fleet=NAME"
        yield Check("storage", "warning", f"it is not looked at, nor are pools; {hint}")


@dataclass(frozen=True, slots=True)
class SoftwareHere:
    """What this machine runs: versions by name, and the digests of code that all must share."""

    versions: Mapping[str, str]
    code: Mapping[str, str]


def judged(
    reports: Sequence[NodeReport], here: SoftwareHere, pools: Sequence[str]
) -> Iterator[Check]:
    """Yield what is in the way on single nodes, then a line for each pool of nodes that are fine.

    `here` is what this machine runs, `pools` the names of those that the fleet has.
    """
    fine: dict[str, list[NodeReport]] = {}
    for report in reports:
        problems = list(_problems(report, here))
        yield from problems
        if not problems:
            fine.setdefault(report.pool, []).append(report)
    for pool, nodes in sorted(fine.items()):
        yield Check(f"pool {pool}" if pool else OTHERS, "ok", _in_words(nodes))
    for pool in sorted({*pools} - {report.pool for report in reports}):
        start = f"start one by `ray start --address=HEAD:PORT --labels pool={pool} ...`"
        yield Check(f"pool {pool}", "warning", f"no node carries the label pool={pool}; {start}")


def _problems(report: NodeReport, here: SoftwareHere) -> Iterator[Check]:
    name = f"node {report.node}"
    if report.silent:
        hint = "see `ray status`, and start the node again if it does not come back"
        yield Check(name, "error", f"{report.silent}; {hint}")
        return
    for finding in _differences(report, here):
        yield Check(name, "error", finding)
    if abs(report.ahead) > MOST_SECONDS_AHEAD:
        direction = "ahead of" if report.ahead > 0 else "behind"
        off = f"its clock is {abs(report.ahead):.1f} s {direction} this machine's"
        yield Check(name, "warning", f"{off}; set it by `chronyc makestep` there")
    for folder, free in report.free.items():
        least = LEAST_SHARED_MEMORY_GB if folder == SHARED_MEMORY else LEAST_FREE_GB
        if free < least * GB:
            has = f"{folder!r} has {free / GB:.1f} GB free, of {least:g} GB that are wanted"
            yield Check(name, "warning", f"{has}; free some, or give it more")
    for what, why in report.lacking.items():
        yield Check(name, "error", f"it does not see the {what}: {why}; {_HINTS[what]}")


def _differences(report: NodeReport, here: SoftwareHere) -> Iterator[str]:
    """Yield in what the software of a node differs, with what to type; it would refuse work."""
    for what, version in here.versions.items():
        other = report.versions.get(what, "")
        if other != version:
            has = f"has {what} {other}" if other else f"has no {what}"
            yield f"{has}, this machine {version}; install {what} {version} there"
    if report.versions.get("orchestrator") != here.versions.get("orchestrator"):
        return
    for package, digest in here.code.items():
        other = report.code.get(package, digest)
        if other != digest:
            hint = "`pip install --force-reinstall WHEEL` there, of the same wheel as here"
            yield f"its {package} is {other}, that of this machine {digest}: other files; {hint}"


_HINTS = {
    "storage": "give its processes the same storage.uri, credentials (AWS_*, FSSPEC_*) and extras",
    "database": "let it reach that address, with its password and certificates: a controller may "
    "run there",
}


def _in_words(nodes: Sequence[NodeReport]) -> str:
    named = ", ".join(f"{n.node} ({n.host} on {n.interface or '?'})" for n in nodes)
    ahead = max((abs(node.ahead) for node in nodes), default=0.0)
    free = min(
        (free for n in nodes for f, free in n.free.items() if f != SHARED_MEMORY), default=0
    )
    seen = f"clocks within {ahead:.1f} s, {free / GB:.0f} GB free at least"
    untried = dict.fromkeys(f"{what} ({why})" for n in nodes for what, why in n.untried.items())
    but = f"; reached and not opened: the {', the '.join(untried)}" if untried else ""
    return f"{named}: versions as here, {seen}, all is seen that is looked at{but}"
