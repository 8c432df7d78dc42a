"""Secrets in the process of a replica: its environment has them, and its log does not."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from orchestrator.core.errors import ServingError
from orchestrator.node.masking import hidden

_STREAMS = (1, 2)


def install(secrets: Mapping[str, str]) -> None:
    """Set the variables, and take their values out of all that this process writes from now on."""
    if not secrets:
        return
    os.environ.update(secrets)  # noqa: TID251 - engines and storage read them
    values = tuple(secrets.values())
    logging.setLogRecordFactory(_Records(values))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor in _STREAMS:
        _filter(descriptor, values)


@contextmanager
def masked_errors(secrets: Mapping[str, str]) -> Iterator[None]:
    """Raise what comes out of this without the values of secrets: Ray and Serve write it down.

    Raises:
        ServingError: In the place of an error in which one stands.
    """
    try:
        yield
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        if hidden(text, secrets.values()) == text:
            raise
        line = hidden(f"{type(error).__name__}: {error}", secrets.values())
        raise ServingError(line) from None


class _Records:
    """Makes the records of loggers, in which no value of a secret stands."""

    def __init__(self, values: Sequence[str]) -> None:
        self._values, self._make = values, logging.getLogRecordFactory()

    def __call__(self, *args: object, **named: object) -> logging.LogRecord:
        record = self._make(*args, **named)
        record.msg, record.args = hidden(record.getMessage(), self._values), ()
        if record.exc_info and record.exc_info[0]:
            text = "".join(traceback.format_exception(*record.exc_info))
            if hidden(text, self._values) != text:
                record.exc_info, record.exc_text = None, hidden(text, self._values)
        return record


def _filter(descriptor: int, values: Sequence[str]) -> None:
    """Have a thread pass on what is written to a descriptor, line by line, without `values`."""
    original, (reader, writer) = os.dup(descriptor), os.pipe()
    os.dup2(writer, descriptor)
    os.close(writer)

    def pass_on() -> None:
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                with suppress(OSError):  # a full disk: the engine must not stand still
                    os.write(original, hidden(line.decode(errors="replace"), values).encode())

    threading.Thread(target=pass_on, name=f"hides-{descriptor}", daemon=True).start()
