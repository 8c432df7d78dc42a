"""`orchestrator _reconcile ADDRESS [SETTINGS]`: what keeps endpoints as the database says."""

from __future__ import annotations

import argparse
from functools import partial
from typing import NoReturn

from orchestrator.service.daemons import reconciler


def run(args: argparse.Namespace) -> NoReturn:
    """Look every moment, until the service is stopped."""
    reconciler.run(args.address, args.settings, partial(print, flush=True))
