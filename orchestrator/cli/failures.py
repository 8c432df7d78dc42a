"""`orchestrator failures explain [FILE|-]`: what a failure is taken for, and what follows it.

Reads an excerpt of a worker's log, or cases as JSON: `{"as": "line" | "exception", "type": ...,
"message": ..., "lines": [...]}`, or a list of them. With `expected`, what is right, each case says
whether it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cli import composing
from orchestrator.cli.exits import Exit
from orchestrator.controller.explain import explain
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.failures.exceptions import Raised
from orchestrator.core.failures.kinds import (
    TRANSIENT,
    WHERE,
    Action,
    Failure,
    FailureKind,
    default_action,
)
from orchestrator.core.failures.log_excerpt import Excerpt, parse
from orchestrator.core.failures.python_errors import bases
from orchestrator.core.settings import Settings
from orchestrator.core.text import visible

Json = Any  # what a file holds, before it is checked
# What a case may call a kind that has become finer since.
COARSER: Mapping[FailureKind, frozenset[str]] = {
    FailureKind.STORAGE: frozenset({"data", "software"}),
    FailureKind.SET_UP: frozenset({"software"}),
    FailureKind.HOST_MEMORY: frozenset({"out_of_memory"}),
}
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


@dataclass(frozen=True, slots=True)
class _Case:
    """What is to be explained, and what is right, where that is known."""

    excerpt: Excerpt
    expected: tuple[str, ...] | None = None


def run(args: argparse.Namespace) -> Exit:
    """Explain what is in the file, or comes by standard input."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    name, overrides = _file(args.overrides)
    cases, several = _read(_text(name), name)
    args.overrides = overrides
    settings = composing.settings(args)
    told = [_told(case, settings) for case in cases]
    if args.json:
        print(json.dumps(told if several else told[0], indent=2))
        return Exit.SUCCEEDED
    print(visible("\n\n".join("\n".join(_lines(one)) for one in told)))
    if several and any("right" in one for one in told):
        right = sum(bool(one.get("right")) for one in told)
        print(f"\n{right} of {len(told)} as expected")
    return Exit.SUCCEEDED


# --- what is read -----------------------------------------------------------------------------


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
    text = data.decode("utf-8", "replace")
    if not text.strip():
        raise _refused(
            f"{name!r} is empty", "give some lines of a worker's log, or a case as JSON"
        )
    return text


def _read(text: str, name: str) -> tuple[list[_Case], bool]:
    """Return the cases of a file, and whether it holds a list of them."""
    try:
        found: Json = json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith("{") or name.endswith(".json"):
            raise _refused(f"{name!r} is no JSON: {error}", "mend it, or give a log") from error
        return [_Case(parse(text))], False
    except RecursionError:
        raise _refused(f"{name!r} nests too deep", "give a case or a list of them") from None
    if isinstance(found, dict):
        return [_case(found, "the case")], False
    if isinstance(found, list) and found and all(isinstance(one, dict) for one in found):
        return [_case(one, f"case {at}") for at, one in enumerate(found)], True
    if isinstance(found, list):
        raise _refused(f"{name!r} is a list without cases", 'give {"as": ..., "lines": [...]}')
    return [_Case(parse(text))], False


def _case(found: Mapping[str, Json], where: str) -> _Case:
    how, lines = found.get("as"), found.get("lines", [])
    if how not in {"line", "exception"}:
        raise _refused(f"{where}: 'as' is {how!r}", "it is 'line' or 'exception'")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _refused(f"{where}: 'lines' is {lines!r}", "it is a list of texts")
    expected = _expected(found.get("expected"), where)
    split = tuple(part for line in lines for part in line.splitlines() or [""])
    if how == "line":
        return _Case(Excerpt(split), expected)
    kind, message = found.get("type"), found.get("message", "")
    if not isinstance(kind, str) or not kind:
        raise _refused(f"{where}: 'type' is {kind!r}", "it names the type of the exception")
    if not isinstance(message, str):
        raise _refused(f"{where}: 'message' is {message!r}", "it is a text")
    return _Case(Excerpt(split, (Raised(bases(kind), message),)), expected)


def _expected(found: Json, where: str) -> tuple[str, ...] | None:
    names = [found] if isinstance(found, str) else found
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _refused(f"{where}: 'expected' is {found!r}", "it is a list of kinds")
    return tuple(names)


def _refused(what: str, hint: str) -> ConfigError:
    return ConfigError([Problem("", what, hint)])


# --- what is told -----------------------------------------------------------------------------


def _told(case: _Case, settings: Settings) -> dict[str, Json]:
    failure = explain(case.excerpt, tuple(settings.signatures.values()))
    kind, action = failure.kind, _follows(failure)
    told: dict[str, Json] = {
        "kind": str(kind),
        "where": str(WHERE[kind]),
        "sign": failure.sign,
        "pattern": _pattern(failure, settings),
        "certain": failure.certain,
        "transient": kind in TRANSIENT,
        "evidence": failure.evidence,
        "follows": str(action),
    }
    differing = {
        stage.name: str(stage.on_failure[kind])
        for stage in settings.pipeline.stages
        if stage.on_failure.get(kind, action) is not action
    }
    if differing:
        told["stages"] = differing
    if case.expected is not None:
        told["expected"] = list(case.expected)
        told["right"] = bool({str(kind), *COARSER.get(kind, ())} & set(case.expected))
    return told


def _follows(failure: Failure) -> Action:
    """Return what follows by itself: the user's code ends a stage only once that is certain."""
    if failure.kind is FailureKind.USER_CODE and not failure.certain:
        return Action.ESCALATE
    return default_action(failure)


def _pattern(failure: Failure, settings: Settings) -> str:
    found = settings.signatures.get(failure.sign)
    return found.pattern if found else ""


def _lines(told: Mapping[str, Json]) -> list[str]:
    sure = "certain" if told["certain"] else "likely"
    lasting = "may pass by itself" if told["transient"] else "does not pass by itself"
    place = told["where"] or "nobody knows where"
    lines = [f"{told['kind']} ({place}; {sure}; {lasting})", f"  evidence  {told['evidence']}"]
    pattern = f": {told['pattern']}" if told["pattern"] else ""
    lines.append(f"  sign      {told['sign'] or 'none'}{pattern}")
    lines.append(f"  follows   {told['follows']}: {WORDS[Action(told['follows'])]}")
    for stage, action in told.get("stages", {}).items():
        lines.append(f"            in stage {stage}: {action}: {WORDS[Action(action)]}")
    if "right" in told:
        expected = ", ".join(told["expected"])
        lines.append(f"  expected  {expected}: {'right' if told['right'] else 'not so'}")
    return lines
