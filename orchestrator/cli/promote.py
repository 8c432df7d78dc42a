"""`orchestrator promote MODEL [VERSION]`: make a version the champion of its model.

It moves no traffic: that is `traffic`, `switch` and `rollback`, which make the champion what they
give all traffic to.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from orchestrator import wiring
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.trust.registry import CANDIDATE, ModelVersion, Parity


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Promote the version that is named, or the candidate."""
    with closing(wiring.registry(wiring.home(), start=not args.dry_run)) as registry:
        there = registry.versions(args.model)
    chosen = choose(args.model, args.version, there)
    _check(chosen, args.force)
    what = f"make version {chosen.number} of {chosen.name} the champion"
    return [Step(what, partial(_promote, chosen, args.force))]


def _promote(chosen: ModelVersion, force: str) -> None:
    why = f", who forced it: {force}" if force else ""
    with closing(wiring.registry(wiring.home())) as registry:
        registry.promote(chosen, f"by {wiring.user()}{why}")
    print(f"Version {chosen.number} of {chosen.name} is the champion.")


def choose(model: str, version: int | None, there: Sequence[ModelVersion]) -> ModelVersion:
    """Return a version of a model by its number, or the candidate.

    Raises:
        NotFoundError: There is none.
    """
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
