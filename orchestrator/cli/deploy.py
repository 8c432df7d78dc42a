"""`orchestrator deploy`: add a revision to an endpoint, without any traffic.

`deploy RUN [KEY=VALUE...]` deploys what a run has made, `deploy ENDPOINT [KEY=VALUE...]` what an
endpoint serves; with `--address URL` it takes an OpenAI-compatible server that somebody else runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli import switch
from orchestrator.cli.endpoints import show
from orchestrator.cli.steps import Step
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.service import endpoints, switching
from orchestrator.service.deploying import absolute, deploy_outside


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Add a revision."""
    if args.address:
        return _outside(args)
    deployed = switching.deploy(args.name, args.overrides, unqualified=args.unqualified)
    return switch.steps_of(deployed)


def _outside(args: argparse.Namespace) -> Sequence[Step]:
    server = Outside(
        address=args.address,
        model=args.model or args.name,
        key_variable=args.key_variable,
        key_file=absolute(args.key_file),
        key_header=args.key_header,
        headers=tuple(args.header),
        ca_file=absolute(args.ca_file),
        proxy=args.proxy,
    )
    added = deploy_outside(args.name, server)
    for note in added.notes:
        print(note)
    return [Step.of(added.change, lambda _: show(endpoints.endpoints(args.name)))]
