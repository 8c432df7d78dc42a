"""`orchestrator _complete WORDS`: what may stand for the last word, one a line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from orchestrator import wiring
from orchestrator.cli import parser
from orchestrator.cli.exits import Exit

TAKE_OVERRIDES = {"plan", "launch", "pools", "qualify", "up"}
TAKE_RUNS = {"status", "logs", "cancel", "approve", "resume"}
NEWEST_RUNS = 50


def run(args: argparse.Namespace) -> Exit:
    """Print the words that fit."""
    words = args.words or [""]
    for word in _fitting(words[:-1], words[-1]):
        print(word)
    return Exit.SUCCEEDED


def _fitting(before: list[str], word: str) -> Iterable[str]:
    if not before:
        return [verb for verb in parser.verbs() if verb.startswith(word)]
    if before == ["failures"]:
        return [one for one in ("explain",) if one.startswith(word)]
    if before[0] in TAKE_OVERRIDES and not word.startswith("-"):
        from orchestrator.adapters import hydra_config

        return hydra_config.complete([*before[1:], word])
    if before[0] in TAKE_RUNS and len(before) == 1:
        headers = wiring.event_store(wiring.home()).runs(NEWEST_RUNS)
        return [header.run for header in headers if header.run.startswith(word)]
    return []
