"""The applications of a revision: one, or two while its replicas are replaced by others.

Replicas that stand on a node that is not to be used are replaced as a set: others of the same
revision start beside them, and once all of those answer requests go there. Names take turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from orchestrator.adapters.rayserve import state
from orchestrator.adapters.rayserve.state import ServeApplication
from orchestrator.messages import Replacement, RevisionStatus

Sets: TypeAlias = Mapping[str, ServeApplication]  # by name, the oldest first
_TURNS = ("", ".b", ".c")
_TURN = re.compile(r"(?<=\d)\.[bc]$")  # after the number of the revision


def revision_of(application: str) -> str:
    """Return the name of the revision that an application has replicas of."""
    return _TURN.sub("", application)


def free_name(revision: str, applications: Collection[str]) -> str:
    """Return a name for another application of a revision; empty where all are taken."""
    names = (f"{revision}{turn}" for turn in _TURNS)
    return next((name for name in names if name not in applications), "")


def by_revision(applications: Mapping[str, ServeApplication]) -> Mapping[str, Sets]:
    """Return the applications of each revision."""
    ordered = sorted(applications.items(), key=lambda item: item[1].deployed)
    names = dict.fromkeys(revision_of(name) for name, _ in ordered)
    return {
        revision: {name: app for name, app in ordered if revision_of(name) == revision}
        for revision in names
    }


def serving(sets: Sets, coming: Collection[str] = ()) -> str:
    """Return the application that requests go to: the newest, once all of it answers.

    That is not yet said of those that are `coming`.
    """
    names = list(sets)
    newest = names[-1]
    answers = sets[newest].complete and newest not in coming
    return newest if answers or len(names) == 1 else names[0]


def status(
    sets: Sets, coming: Collection[str], misplaced: Callable[[ServeApplication], Sequence[str]]
) -> RevisionStatus:
    """Return how a revision stands, by that of its applications to which requests go.

    `misplaced` returns the nodes of an application that are not to be used.
    """
    chosen = serving(sets, coming)
    replacement = None
    if len(sets) > 1:
        newest = list(sets)[-1]
        replacement = Replacement.READY if chosen == newest else Replacement.STARTING
    return state.status(sets[chosen], replacement, tuple(misplaced(sets[chosen])))
