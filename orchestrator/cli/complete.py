"""`orchestrator _complete WORDS`: what may stand for the last word, one a line.

What a verb takes is read from its parser, so that a new one is completed too. Nothing is made:
in a folder without a home there is nothing to offer of it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from orchestrator.cli import parser
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import OrchestratorError
from orchestrator.service import names

COMPOSE = frozenset({"plan", "launch", "pools", "qualify", "up", "failures"})
CHANGE = frozenset({"switch", "deploy"})  # what an earlier config composed
EMPTYING = ("drain", "undrain")  # of `pools`; each takes the name of one
EMPTY = [[word] for word in EMPTYING]
NEWEST_RUNS = 50


def run(args: argparse.Namespace) -> Exit:
    """Print the words that fit."""
    words = args.words or [""]
    for word in dict.fromkeys(_fitting(words[:-1], words[-1])):
        print(word)
    return Exit.SUCCEEDED


def _fitting(before: list[str], word: str) -> Iterable[str]:
    if not before:
        return [verb for verb in parser.verbs() if verb.startswith(word)]
    verb, typed = before[0], before[1:]
    known = parser.actions(verb)
    option = next((a for a in known if typed and typed[-1] in a.option_strings), None)
    if option is not None and option.nargs != 0:
        return _starting(word, _named(option, typed))
    if word.startswith("-"):
        return _starting(word, (flag for option in known for flag in option.option_strings))
    places = [action for action in known if not action.option_strings]
    at = len(_positionals(known, typed))
    words = [*_starting(word, _named(places[at], typed))] if at < len(places) else []
    if verb == "failures" and at == 1:
        words += _starting(word, _files(word))
    words += _starting(word, _of_pools(verb, typed))
    if verb in COMPOSE and not (verb == "failures" and at == 0):
        words += _overrides(typed, word)
    return words + (_overrides([], word) if verb in CHANGE and at else [])


def _positionals(actions: Sequence[argparse.Action], typed: Sequence[str]) -> list[str]:
    """Return the words of `typed` that are no option and no value of one."""
    valued = {name for action in actions if action.nargs != 0 for name in action.option_strings}
    return [
        word
        for at, word in enumerate(typed)
        if not word.startswith("-") and (at == 0 or typed[at - 1] not in valued)
    ]


def _named(action: argparse.Action, typed: Sequence[str]) -> Iterable[str]:
    """Return what an argument may be, by its choices or the word that help has for it."""
    if action.choices:
        return map(str, action.choices)
    what = "ENDPOINT" if action.dest in {"endpoint", "model"} else str(action.metavar)
    offer = OFFERS.get(what)
    if offer is None or not names.has_any():
        return ()
    try:
        return offer(typed)
    except OrchestratorError:
        return ()


def _runs(typed: Sequence[str]) -> Iterable[str]:  # noqa: ARG001 - all offers have this form
    return names.runs(NEWEST_RUNS)


def _stages(typed: Sequence[str]) -> Iterable[str]:
    """Return the stages of the run that is typed before."""
    named = [word for word in typed if not word.startswith("-")]
    return names.stages(named[0]) if named else []


def _endpoints(typed: Sequence[str]) -> Iterable[str]:  # noqa: ARG001 - all offers have this form
    return names.endpoints()


def _keys(typed: Sequence[str]) -> Iterable[str]:
    """Return names of keys, where one is to be changed."""
    if "require" in typed:
        return ("on", "off")
    return () if "add" in typed else names.keys()


def _both(typed: Sequence[str]) -> Iterable[str]:
    return [*_endpoints(typed), *_runs(typed)]


OFFERS: Mapping[str, Callable[[Sequence[str]], Iterable[str]]] = {
    "RUN": _runs,
    "STAGE": _stages,
    "ENDPOINT": _endpoints,
    "ENDPOINT|RUN": _both,
    "KEY|on|off": _keys,
}


def _of_pools(verb: str, typed: Sequence[str]) -> Iterable[str]:
    """Return what may stand where a pool is named, or what is done with one."""
    plain = [word for word in typed if "=" not in word and not word.startswith("-")]
    if verb == "pools" and not typed:
        return EMPTYING
    named = (verb == "qualify" and not plain) or (verb == "pools" and plain in EMPTY)
    if not named:
        return ()
    return names.pools(typed)


def _files(word: str) -> Iterable[str]:
    """Return what lies in the folder of the path that is typed so far."""
    folder = word[: word.rfind("/") + 1]
    try:
        with os.scandir(folder or ".") as entries:
            return sorted(
                f"{folder}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries
            )
    except OSError:
        return []


def _overrides(typed: Sequence[str], word: str) -> list[str]:
    return list(names.overrides([*typed, word]))


def _starting(word: str, words: Iterable[str]) -> list[str]:
    return [candidate for candidate in words if candidate.startswith(word)]
