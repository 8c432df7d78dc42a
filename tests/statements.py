"""What a database is asked for: statements, and transactions that write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count, of all databases of this process, until the end of this.

    By the verb of a statement (`SELECT`, `INSERT`, ...); `commits` are of those that write.
    """
    counts: Counter[str] = Counter()

    def asked(_connection: Connection, _cursor: object, statement: str, *_rest: Any) -> None:
        verb = statement.split(maxsplit=1)[0].upper()
        if verb != "BEGIN":
            counts[verb] += 1

    def committed(connection: Connection) -> None:
        counts["commits"] += bool(connection.get_execution_options().get("writes"))

    event.listen(Engine, "before_cursor_execute", asked)
    event.listen(Engine, "commit", committed)
    try:
        yield counts
    finally:
        event.remove(Engine, "before_cursor_execute", asked)
        event.remove(Engine, "commit", committed)
