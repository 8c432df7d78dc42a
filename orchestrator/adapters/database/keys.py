"""API keys, and whether they are asked for.

Each change takes the one row of rules first: changes of several processes come one after the
other, and each leaves a stamp that no state before had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.database import codec
from orchestrator.adapters.database.schema import key_rules, keys
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.endpoints.api_keys import ApiKey, KeyRules, Requirement
from orchestrator.core.errors import NotFoundError, StoreError

_ONLY = 1


class SqlKeys(Transactions):
    """The port `KeyStore`."""

    def add_key(self, key: ApiKey) -> None:
        """Keep an API key; the first one has keys asked for from then on.

        Raises:
            StoreError: There is one of its name.
        """
        with self._changing() as connection:
            first = not connection.scalar(select(func.count()).select_from(keys))
            try:
                connection.execute(keys.insert(), {"name": key.name, "body": codec.dump(key)})
            except IntegrityError as error:
                message = f"there is a key {key.name!r}; revoke it first, or take another name"
                raise StoreError(message) from error
            if first:
                connection.execute(update(key_rules).values(required=Requirement.ON))

    def change_key(self, key: ApiKey) -> None:
        """Keep `key` in place of the one of its name. Raises `NotFoundError`."""
        with self._changing() as connection:
            changed = update(keys).where(keys.c.name == key.name).values(body=codec.dump(key))
            count = connection.execute(changed).rowcount
        if not count:
            raise NotFoundError(self._unknown_key(key.name))

    def drop_key(self, name: str) -> None:
        """Forget an API key; whether keys are asked for stays as it is. Raises `NotFoundError`."""
        with self._changing() as connection:
            gone = connection.execute(delete(keys).where(keys.c.name == name)).rowcount
        if not gone:
            raise NotFoundError(self._unknown_key(name))

    def api_keys(self) -> Sequence[ApiKey]:
        """Return all API keys, by name."""
        with self._reading() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.name)).all()
        return [codec.load(ApiKey, row.body, f"key {row.name!r}") for row in rows]

    def require_keys(self, *, on: bool) -> None:
        """Have keys asked for, or not."""
        with self._changing() as connection:
            requirement = Requirement.ON if on else Requirement.OFF
            connection.execute(update(key_rules).values(required=requirement))

    def key_rules(self) -> KeyRules:
        """Return whether keys are asked for, and a stamp that changes whenever any key does."""
        with self._reading() as connection:
            row = connection.execute(select(key_rules)).one_or_none()
            if row is not None:
                return KeyRules(_requirement(row.required), row.stamp)
            return KeyRules(Requirement.UNKNOWN)

    def _unknown_key(self, name: str) -> str:
        known = ", ".join(key.name for key in self.api_keys()) or "none"
        return f"no key {name!r}; there are: {known}"

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """Hold the row of rules for a change of the keys, and leave a new stamp in it."""
        stamp = {"stamp": uuid4().hex}
        with self._writing() as connection:
            row = {"id": _ONLY, "required": Requirement.UNKNOWN, **stamp}
            added = self._insert(key_rules).values(**row)
            connection.execute(added.on_conflict_do_update(index_elements=["id"], set_=stamp))
            yield connection


def _requirement(text: str) -> Requirement:
    """Return what the row says; what no version knows asks for keys."""
    known = text in set(Requirement)
    return Requirement(text) if known else Requirement.ON
