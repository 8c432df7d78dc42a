"""What a verb would change, step by step, and the one place that changes it.

A verb that changes something returns its steps and changes nothing itself. `carry_out` does them,
or with `--dry-run` prints them: so no verb can forget what the flag promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.cli.exits import Exit
from orchestrator.display import tables
from orchestrator.service.change import Change

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """A change: what it is, in lines, and what does it.

    `do` returns how it ended, where it can end in several ways: after a bad end nothing follows.
    An `announced` step is printed before it is done, too: it takes its time.
    """

    what: str
    do: Callable[[], Exit | None]
    announced: bool = False

    @classmethod
    def of(cls, change: Change[T], tell: Callable[[T], Exit | None]) -> Step:
        """Return the step that makes a change, and then tells what came of it."""
        return cls(change.what, lambda: tell(change.make()))


def carry_out(steps: Sequence[Step], *, dry: bool) -> Exit:
    """Do the steps one after the other, or print them where it is a `dry` run."""
    out = tables.console()
    for step in steps:
        if dry or step.announced:
            for line in step.what.splitlines():
                out.print(f"  {line}", markup=False)
    if dry:
        return Exit.SUCCEEDED
    for step in steps:
        ended = step.do()
        if ended:
            return ended
    return Exit.SUCCEEDED
