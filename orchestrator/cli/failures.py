"""`orchestrator failures explain [FILE|-]`: what a failure is taken for, and what follows it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.cli import composing
from orchestrator.cli.exits import Exit
from orchestrator.cli.failure_cases import cases
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.failures.kinds import Action
from orchestrator.core.text import visible
from orchestrator.service.explaining import Json, explained

WORDS: Mapping[Action, str] = {
    Action.RETRY: "again here, after a pause",
    Action.OTHER_NODES: "again on other nodes of the pool",
    Action.FALL_BACK: "falls back to the next pool of the role",
    Action.LOWER_BATCH: "again here with smaller micro-batches",
    Action.ROLL_BACK: "again here from an earlier checkpoint, with a lower learning rate",
    Action.ESCALATE: "again here, then on other nodes, then on the next pool, then paused",
    Action.PAUSE: "the run pauses, until it is resumed",
    Action.STOP: "the run stops; it can be resumed",
}


def run(args: argparse.Namespace) -> Exit:
    """Explain what is in the file, or comes by standard input."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    name, overrides = _file(args.overrides)
    read, several = cases(_text(name), name)
    args.overrides = overrides
    settings = composing.settings(args)
    judgements = [explained(case, settings) for case in read]
    if args.json:
        print(json.dumps(judgements if several else judgements[0], indent=2))
        return Exit.SUCCEEDED
    print(visible("\n\n".join("\n".join(_lines(judgement)) for judgement in judgements)))
    if several and any("right" in judgement for judgement in judgements):
        right = sum(bool(judgement.get("right")) for judgement in judgements)
        print(f"\n{right} of {len(judgements)} as expected")
    return Exit.SUCCEEDED


def _file(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the file that is named, `-` where none is, and the overrides."""
    if words and (words[0] == "-" or "=" not in words[0] or Path(words[0]).exists()):
        return words[0], list(words[1:])
    return "-", list(words)


def _text(name: str) -> str:
    if name == "-" and sys.stdin is None:
        raise _refused("standard input is closed", "name a file")
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise _refused(f"{name!r} can't be read: {error.strerror}", "name a file, or -") from error
    return data.decode("utf-8", "replace")


def _refused(what: str, hint: str) -> ConfigError:
    return ConfigError([Problem("", what, hint)])


def _lines(judgement: Mapping[str, Json]) -> list[str]:
    sure = "certain" if judgement["certain"] else "likely"
    lasting = "may pass by itself" if judgement["transient"] else "does not pass by itself"
    place = judgement["where"] or "nobody knows where"
    lines = [
        f"{judgement['kind']} ({place}; {sure}; {lasting})",
        f"  evidence  {judgement['evidence']}",
    ]
    pattern = f": {judgement['pattern']}" if judgement["pattern"] else ""
    lines.append(f"  sign      {judgement['sign'] or 'none'}{pattern}")
    lines.append(f"  follows   {judgement['follows']}: {WORDS[Action(judgement['follows'])]}")
    for stage, action in judgement.get("stages", {}).items():
        lines.append(f"            in stage {stage}: {action}: {WORDS[Action(action)]}")
    if "right" in judgement:
        expected = ", ".join(judgement["expected"])
        lines.append(f"  expected  {expected}: {'right' if judgement['right'] else 'not so'}")
    return lines
