"""The error tree. Every error that a user can cause ends here.

OrchestratorError
├── ConfigError            the config does not parse; carries every problem found
├── PlanError              the config parses, but the pipeline can't run on this fleet
├── NotFoundError          no such run, stage, pool or endpoint
├── HeldError              a run has a controller already, and that one lives
├── JobError               a job can't be imported or called
├── DivergenceError        a loss went astray
├── ArtifactError          an artifact is missing, incomplete or altered
│   ├── DamagedError           it is torn, altered or not there: it may be made again
│   ├── StorageError           the storage is away, full or slow: it may pass
│   └── StorageSetUpError      this host is not set up for the storage
├── StaleAttemptError      a newer attempt has claimed the checkpoints of the stage
├── StoreError             the database can't be read or written
│   ├── StaleControllerError   another controller has taken this run over
│   ├── ConflictError          somebody else has changed the endpoint meanwhile
│   └── UnstorableError        a value that no database takes: trying again is in vain
├── ClusterError           the cluster can't be started, reached or used
├── SoftwareError          a node runs another version than its controller
├── ServingError           an endpoint can't be deployed or reached
├── TrackingError          the tracking server can't be started or reached
└── TransitionError        a state and an event that do not fit: a defect of ours

A message names the offending value with `!r`, where it stands, and the way out, on one line that
can be read at a glance: whatever a user wrote is shortened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

VALUE = 80  # characters of a value that are shown
PATH, WHAT, LINE = 120, 240, 500  # characters of a problem's path, of what is wrong, and of all


def shown(value: object) -> str:
    """Return `value` as a message shows it: by `!r`, of a long one the beginning and its size."""
    if isinstance(value, str) and len(value) > VALUE:
        return f"{value[:VALUE]!r}... ({len(value)} characters)"
    text = repr(value)
    return text if len(text) <= VALUE else f"{text[:VALUE]}..."


def _readable(text: str, most: int) -> str:
    """Return `text` on one line, no longer than `most`: its beginning and its end."""
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[:LINE])
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 3]}...{text[-end:]}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a config, and the way out.

    Attributes:
        path: Where it stands, as a dotted config path (`roles.train`).
        what: What is wrong, with the offending value shown by `!r`.
        hint: What to do about it; may be empty.
    """

    path: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        """Return the problem as one line of `LINE` characters at most."""
        path, what = _readable(self.path, PATH), _readable(self.what, WHAT)
        line = f"{path}: {what}" if path else what
        return f"{line}; {_readable(self.hint, LINE - len(line) - 2)}" if self.hint else line


class OrchestratorError(Exception):
    """Base of every error that is reported as a line and not as a traceback.

    `run` is the run that has to end, or that goes on later, where it is about one: whoever
    reports the error says how that is asked for.
    """

    run: str = ""


class _ProblemsError(OrchestratorError):
    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(_ProblemsError):
    """The config does not parse. `problems` holds all of them."""


class PlanError(_ProblemsError):
    """The pipeline can't run on this fleet. `problems` holds all reasons."""


class NotFoundError(OrchestratorError):
    """What the user named does not exist."""


class HeldError(OrchestratorError):
    """A run has a controller already, and that one lives."""


class JobError(OrchestratorError):
    """A job can't be imported, or is not a function that takes a context."""


class DivergenceError(OrchestratorError, FloatingPointError):
    """A loss is no number any more, or rose far above what it was."""


class ArtifactError(OrchestratorError):
    """An artifact is missing, incomplete, or differs from its manifest."""


class DamagedError(ArtifactError):
    """What is stored is torn, altered or not there: it may be made again."""


class StorageError(ArtifactError):
    """The storage refuses, is away, full or too slow: nothing is known to be damaged."""


class StorageSetUpError(ArtifactError):
    """This host lacks what the storage needs, or can't see it: trying again is in vain."""


class StaleAttemptError(OrchestratorError):
    """A newer attempt has claimed the checkpoints: the one that gets this must stop."""


class StoreError(OrchestratorError):
    """The database can't be read or written."""


class StaleControllerError(StoreError):
    """Another controller appended to this run: the one that gets this must stop."""


class ConflictError(StoreError):
    """Somebody else has changed the endpoint meanwhile: look again, and try again."""


class UnstorableError(StoreError):
    """A value that the database can't hold: it would be refused the next time too."""


class ClusterError(OrchestratorError):
    """The cluster can't be started, reached or used."""


class SoftwareError(OrchestratorError):
    """A node runs another version of something than its controller, or has it not at all."""


class ServingError(OrchestratorError):
    """An endpoint can't be deployed or reached."""


class TrackingError(OrchestratorError):
    """The tracking server can't be started or reached."""


class TransitionError(OrchestratorError):
    """A state and an event that do not fit together."""
