"""`orchestrator _reap`: the service that looks after runs whose controller is gone."""

from __future__ import annotations

import argparse
from functools import partial

from orchestrator.cli.exits import Exit
from orchestrator.service.daemons import reaper


def run(args: argparse.Namespace) -> Exit:  # noqa: ARG001 - every verb has this form
    """Look every few seconds, until nobody needs it any more."""
    reaper.run(partial(print, flush=True))
    return Exit.SUCCEEDED
