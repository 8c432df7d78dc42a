"""`orchestrator undeploy ENDPOINT [rN]`: take an endpoint away, or one of its revisions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.service import endpoints


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Retire what is named; its replicas go once their streams have ended."""
    number = None if args.revision is None else _number(args.revision)
    return [Step.of(endpoints.undeploy(args.endpoint, number), print)]


def _number(revision: str) -> int:
    """Return the number of a revision that is written as `r2`."""
    match = re.fullmatch(r"r(\d+)", revision)
    if match is None:
        what = f"{revision!r} is no revision"
        raise ConfigError([Problem("undeploy", what, "write it as r2")])
    return int(match[1])
