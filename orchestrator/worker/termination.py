"""Whether this process is asked to end: what a worker looks at while its job runs.

A process is asked before it is killed, in the way of its cluster, which alone knows how: it gives
a question here, that is asked a few times a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_questions: list[Callable[[], bool]] = []


@contextmanager
def told_by(question: Callable[[], bool]) -> Iterator[None]:
    """Have `question` say whether this process is asked to end."""
    _questions.append(question)
    try:
        yield
    finally:
        _questions.remove(question)


def asked_to_end() -> bool:
    """Return whether this process is asked to end."""
    return any(question() for question in list(_questions))
