"""A place that is asked again while its storage hiccups, and whose errors are all translated.

The clients of file systems raise what they like: `OSError`, errors of their HTTP library, of their
cloud's SDK. What may pass by itself is tried again for a while; every call here can be made twice.
Pauses double, and are drawn at random: the workers of a gang, which a storage refused at one
moment, do not come back to it at one moment. What is not there, exists already or is forbidden
comes out as the `OSError` that it is.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import BinaryIO, TypeVar

from orchestrator.adapters.artifacts import client_errors, manifests
from orchestrator.adapters.artifacts.places import StoragePlace
from orchestrator.core.artifact import FileEntry
from orchestrator.core.errors import OrchestratorError, StorageError
from orchestrator.core.settings import PATIENT
from orchestrator.ports import Clock

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; each is twice the one before, at most
# What asking again does not change: where it is, what is there, who asks, how much room there is.
_LASTING = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOTEMPTY,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EXDEV,
        errno.EINVAL,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
    }
)
_LASTING_TYPES = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
Found = TypeVar("Found")


def pauses(random: Callable[[], float]) -> Iterator[float]:
    """Yield the seconds between two tries, without end: each half fixed and half `random`."""
    longest = FIRST_PAUSE
    while True:
        yield longest * (1 + random()) / 2
        longest = min(2 * longest, LONGEST_PAUSE)


class HiccupError(StorageError):
    """What the storage said may pass: it is worth asking again."""


@contextmanager
def hiccups(name: str) -> Iterator[None]:
    """Turn whatever a file system's client raises, and may pass, into one line."""
    try:
        yield
    except OrchestratorError:
        raise
    except Exception as error:
        if client_errors.bucket_is_gone(error):
            message = f"artifact {name!r}: {words(error)}; make the bucket, with what it held"
            raise StorageError(message) from error
        if client_errors.lacks_credentials(error):
            message = f"artifact {name!r}: {words(error)}; give this machine its credentials"
            raise StorageError(message) from error
        if client_errors.is_untrusted(error):
            hint = "name who signs for it by a file that is there (S3: AWS_CA_BUNDLE)"
            raise StorageError(f"artifact {name!r}: {words(error)}; {hint}") from error
        if isinstance(error, _LASTING_TYPES) or _lasts(error):
            raise
        message = f"artifact {name!r}: {words(error)}; check its storage"
        raise HiccupError(message) from error


def _lasts(error: Exception) -> bool:
    """Whether asking again does not change what a number of the system's says.

    An object store's client gives EINVAL to whatever it has no better number for.
    """
    number = getattr(error, "errno", None)
    return number in _LASTING and not (number == errno.EINVAL and client_errors.code(error))


def words(error: Exception) -> str:
    """Return what `error` says, on one line."""
    message = " ".join(str(error).split())
    name = type(error).__name__
    if isinstance(error, OSError):
        return error.strerror or message or name
    return f"{name}: {message}" if message else name


@dataclass(frozen=True, slots=True)
class _StorageOutage:
    """The storage hiccups since `begun`, and did last at `felt`, in seconds of the clock."""

    begun: float
    felt: float


class RetryingPlace:
    """The port `StoragePlace` before another one; without a clock each call is made once.

    The patience is that with an outage, not with each call in it: who saves, fails, and says so in
    a mark waits once.
    """

    def __init__(
        self, inner: StoragePlace, clock: Clock | None, patience: float = PATIENT.storage
    ) -> None:
        """Ask `inner`, and ask it again by `clock` for `patience` seconds."""
        self.inner = inner
        self._clock = clock
        self._patience = patience
        self._random = Random().random  # noqa: S311 - no secret
        self._outage: _StorageOutage | None = None

    def again(self, name: str, ask: Callable[[], Found]) -> Found:
        """Return what `ask` returns, asked again while the storage of `name` hiccups."""
        clock = self._clock
        if clock is None:
            with hiccups(name):
                return ask()
        begun, waits = self._begun(clock.monotonic()), pauses(self._random)
        while True:
            try:
                with hiccups(name):
                    answer = ask()
            except HiccupError:
                now = clock.monotonic()  # asking takes its time, too
                self._outage = _StorageOutage(begun, now)
                left = begun + self._patience - now
                if left <= 0:
                    raise
                clock.sleep(min(next(waits), left))
            else:
                self._outage = None
                return answer

    def _begun(self, now: float) -> float:
        """Return when the outage of now began; one that nobody felt for long is over."""
        outage = self._outage
        lasts = outage is not None and now - outage.felt <= self._patience
        return outage.begun if outage and lasts else now

    # --- writing -------------------------------------------------------------------------------

    def put(self, folder: Path, name: str, manifest: bytes) -> None:
        """Store `folder` as `name`; what was stored before its answer was lost is stored."""

        def ask() -> None:
            if folder.is_dir() or self.inner.manifest(name) != manifest:
                self.inner.put(folder, name, manifest)

        self.again(name, ask)

    def room(self, name: str, part: str) -> Path | None:
        """Make an empty folder for a part: once, as a second one would find the first."""
        with hiccups(name):
            return self.inner.room(name, part)

    def add(self, folder: Path, name: str, part: str) -> None:
        """Flush or send a part."""
        self.again(name, lambda: self.inner.add(folder, name, part))

    def seal(self, name: str, manifest: bytes) -> None:
        """Make `name` appear; what appeared before its answer was lost is there."""
        begun: list[bool] = []

        def ask() -> None:
            again, begun[:] = bool(begun), [True]
            if not (again and self.inner.manifest(name) == manifest):
                self.inner.seal(name, manifest)

        self.again(name, ask)

    def remove(self, name: str) -> None:
        """Take `name` away."""
        self.again(name, lambda: self.inner.remove(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a mark."""
        self.again(name, lambda: self.inner.write(name, content))

    # --- reading -------------------------------------------------------------------------------

    def parts(self, name: str) -> frozenset[str]:
        """Return the paths of all files of all parts of `name`."""
        return self.again(name, lambda: self.inner.parts(name))

    def weight(self, name: str) -> int:
        """Return the bytes of all that lies under `name`, whole or in parts."""
        return self.again(name, lambda: self.inner.weight(name))

    def read(self, name: str) -> bytes | None:
        """Return what a mark says, or `None` where there is none."""
        return self.again(name, lambda: self.inner.read(name))

    def manifest(self, name: str) -> bytes | None:
        """Return the text of the manifest, or `None` where there is none."""
        return self.again(name, lambda: self.inner.manifest(name))

    def files(self, name: str) -> frozenset[str]:
        """Return the paths of all files of `name` but its manifest."""
        return self.again(name, lambda: self.inner.files(name))

    def open(self, name: str, path: str) -> BinaryIO:
        """Open a file of `name` to read; what its stream raises is the reader's care."""
        return self.again(name, lambda: self.inner.open(name, path))

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`, whole or not, each once."""
        return self.again(prefix, lambda: self.inner.children(prefix))

    def entry(self, name: str, path: str) -> FileEntry:
        """Return size and hash of a file of `name`, read from its beginning."""

        def ask() -> FileEntry:
            with self.inner.open(name, path) as stream:
                return manifests.hash_stream(stream)

        return self.again(name, ask)

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy a file of `name` to `target`, from its beginning."""
        self.again(name, lambda: self.inner.fetch(name, path, target))
