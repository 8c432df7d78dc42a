"""Steps, metrics and names as a job gives them: made plain here, or refused as the job's error.

Nothing further on meets a number type of numpy or torch, a name that no database takes, or a step
beyond 64 bits.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import SupportsIndex

from orchestrator.core.errors import JobError
from orchestrator.core.text import shortened, valid

LONGEST_NAME = 250  # characters, as MLflow takes them
MOST_RESULTS = 1_000
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_SHOWN = 100


def whole(value: object, what: str) -> int:
    """Return `value` as a plain integer of 64 bits; what `operator.index` takes is one.

    Raises:
        JobError: It is none; `what` names it, as `step`.
    """
    number = _index(value)
    if number is None:
        raise JobError(
            f"{what} is {_shown(value)}, a {type(value).__name__}; give an integer, as by int()"
        )
    if not _LOWEST <= number <= _HIGHEST:
        raise JobError(f"{what} is {_shown(number)}; give one of 64 bits, up to 2**63 - 1")
    return number


def _index(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return int(operator.index(value))
    except (TypeError, ValueError, RuntimeError):  # an array or a tensor that is no integer
        return None


def numbers(values: object, where: str) -> dict[str, float]:
    """Return metrics as plain numbers; tensors and arrays with one element are numbers too.

    Raises:
        JobError: Something isn't a number, or a name is none.
    """
    if not isinstance(values, Mapping):
        message = f"{where} are a {type(values).__name__}; give a mapping of names to numbers"
        raise JobError(message)
    return {_name(name, where): _number(value, name, where) for name, value in values.items()}


def results(values: object, job: str) -> dict[str, float]:
    """Return the headline metrics that `job` returned; nothing is none.

    Raises:
        JobError: Something isn't a number, or there are more than anybody reads.
    """
    if values is None:
        return {}
    where = f"results of {job!r}"
    if isinstance(values, Mapping) and len(values) > MOST_RESULTS:
        raise JobError(
            f"{where} are {len(values)} metrics; return {MOST_RESULTS} at most, and write the "
            f"others to a file of ctx.output"
        )
    return numbers(values, where)


def _name(name: object, where: str) -> str:
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise JobError(f"{where}: {_shown(name)} is no name of a metric; give a text")
    text = valid(str(name))
    if not text or len(text) > LONGEST_NAME:
        raise JobError(
            f"{where}: {_shown(text)} is no name of a metric; give 1 to {LONGEST_NAME} characters"
        )
    return text


def _number(value: object, name: object, where: str) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError as error:
        raise JobError(f"{where}: {name!r} is {_shown(value)}, too large for a number") from error
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"{where}: {name!r} is no number but a {type(value).__name__}"
        raise JobError(message) from error


def _shown(value: object) -> str:
    """Return `value` for a message of one line; integers of any size are shown."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except (TypeError, ValueError, RuntimeError):
        return f"what can't be shown, of {type(value).__name__}"
    return shortened(valid(" ".join(text.split())), _SHOWN)
