"""`orchestrator ask`: put a question to a served model, and print the answer as it comes."""

from __future__ import annotations

import argparse
import sys

from orchestrator.cli.exits import Exit
from orchestrator.core.text import visible
from orchestrator.service.asking import ask


def run(args: argparse.Namespace) -> Exit:
    """Ask the endpoint that was named, or deployed last."""
    question = sys.stdin.read() if args.question == "-" else args.question
    sampling = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    for piece in ask(question, args.endpoint, **sampling):
        print(visible(piece), end="", flush=True)
    print()
    return Exit.SUCCEEDED
