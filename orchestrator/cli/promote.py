"""`orchestrator promote MODEL [VERSION]`: make a version the champion of its model.

It moves no traffic: that is `traffic`, `switch` and `rollback`, which make the champion what they
give all traffic to.
"""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Sequence
from contextlib import closing

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.registry import CANDIDATE, ModelVersion, Parity


def run(args: argparse.Namespace) -> Exit:
    """Promote the version that is named, or the candidate."""
    with closing(wiring.registry(wiring.home())) as registry:
        there = registry.versions(args.model)
        chosen = _chosen(args.model, args.version, there)
        _check(chosen, args.force)
        why = f", who forced it: {args.force}" if args.force else ""
        registry.promote(chosen, f"by {getpass.getuser()}{why}")
    print(f"Version {chosen.number} of {chosen.name} is the champion.")
    return Exit.SUCCEEDED


def _chosen(model: str, version: int | None, there: Sequence[ModelVersion]) -> ModelVersion:
    if not there:
        raise NotFoundError(f"no model {model!r} is registered; `orchestrator models` lists all")
    known = ", ".join(str(one.number) for one in there)
    for one in there:
        if one.number == version or (version is None and CANDIDATE in one.aliases):
            return one
    what = "candidate" if version is None else f"version {version!r}"
    raise NotFoundError(f"model {model!r} has no {what}; versions: {known}")


def _check(chosen: ModelVersion, force: str) -> None:
    """Refuse what was not seen to do what was trained, unless somebody says why it may."""
    if chosen.parity == Parity.PASSED or force:
        return
    reason = chosen.tags.get("parity.reason")
    what = f"version {chosen.number} of {chosen.name!r}: parity is {chosen.parity!r}"
    said = f"{what} ({reason})" if reason else what
    raise ConfigError([Problem("promote", said, "--force REASON promotes it all the same")])
