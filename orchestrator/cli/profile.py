"""`orchestrator profile RUN STAGE`: what a stage does while it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli.exits import Exit
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.text import visible
from orchestrator.service.profiling import FORMS, profile

SECONDS = 10.0  # of a recording whose length nobody says


def run(args: argparse.Namespace) -> Exit:
    """Print the stacks of a worker now, or write what it was in over some seconds.

    Raises:
        ConfigError: The ending of the file says no form.
    """
    if args.seconds is None and args.output is None:
        stacks = profile(args.run, args.stage, rank=args.rank)
        print(visible(stacks.decode(errors="replace")), end="")
        return Exit.SUCCEEDED
    file = Path(args.output or f"{args.run}.{args.stage}.{args.rank}.svg")
    if file.suffix not in FORMS:
        what = f"{str(file)!r} does not say in what form"
        raise ConfigError([Problem("--output", what, f"end it with {', '.join(FORMS)}")])
    form, seconds = FORMS[file.suffix], args.seconds or SECONDS
    file.write_bytes(profile(args.run, args.stage, rank=args.rank, seconds=seconds, form=form))
    print(f"{file}: {seconds:g} s of stage {args.stage}, worker {args.rank}")
    return Exit.SUCCEEDED
