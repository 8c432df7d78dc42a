"""The command `orchestrator`: parses the command line, calls a verb, turns errors into lines.

A verb is a module `VERB.py` of this package with `run(args)`; it imports what it needs. It returns
its exit code, or, where it changes something, the steps of that, which are done here.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from orchestrator.cli import parser
from orchestrator.cli.exits import Exit, of_error, way_out
from orchestrator.cli.interrupts import terminable
from orchestrator.core.errors import OrchestratorError
from orchestrator.core.text import visible
from orchestrator.display import terminal

if TYPE_CHECKING:
    from orchestrator.cli.steps import Step

MODULES = {
    "_drive": "drive",
    "_complete": "complete",
    "_reap": "reap",
    "_gateway": "gateway",
    "_reconcile": "reconcile",
}
# What drives a run goes on without its terminal; what starts services ends them with itself.
DRIVING = frozenset(
    {
        *("launch", "resume", "rerun", "switch", "qualify", "deploy", "rollback", "cancel"),
        "_drive",
    }
)
STARTING = DRIVING | {"up"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    with terminal.any_encoding():
        args = parser.parse(sys.argv[1:] if argv is None else argv)
        with ExitStack() as whole:
            if args.verb in DRIVING:
                whole.enter_context(terminal.lasting())
            if args.verb in STARTING:
                whole.enter_context(terminable())
            return _run(args)


def _run(args: argparse.Namespace) -> int:
    from orchestrator.cli.steps import carry_out  # help is printed without them
    from orchestrator.service import environment

    module = importlib.import_module(f"orchestrator.cli.{MODULES.get(args.verb, args.verb)}")
    try:
        environment.check_working_folder()
        environment.provide_user()
        ended: Exit | Sequence[Step] = module.run(args)
        if isinstance(ended, Exit):
            return ended
        return carry_out(ended, dry=args.dry_run)
    except OrchestratorError as error:
        for line in visible(str(error) + way_out(error)).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return of_error(error)
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        sys.stderr.close()
        return Exit.SUCCEEDED
    except OSError as error:  # no space left, no such folder, no permission
        print(f"error: {visible(environment.refusal(error))}", file=sys.stderr)
        return Exit.ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Exit.CANCELLED
