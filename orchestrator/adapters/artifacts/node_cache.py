"""What the processes of a machine have fetched of remote artifacts, by digest, once for all.

A lock for each digest lets one process download while the others wait. Whoever uses an artifact
holds it by a second lock: an attempt until it is over, others until their process ends, however
that ends. Of one that is shared out among workers only those files come that somebody asks for.
What nobody holds, and was not used for longest, makes room. A stamp says how its files
were when they were verified: as long as they have the same sizes and times they aren't hashed
again. What processes that were killed had half downloaded, or half filled to be sent, the next one
that comes removes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

from orchestrator.adapters.artifacts.places import regular_files
from orchestrator.core.artifact import ANY_ROOM, MANIFEST_NAME, Manifest
from orchestrator.node.scratch import ScratchFolder, sweep

MOST_BYTES = int(ANY_ROOM.gb * 1e9)
FULL = (errno.ENOSPC, errno.EDQUOT)
SCRATCH = "orchestrator-scratch-"
_ONCE = ".once-"
_COMPILED = frozenset({"__pycache__"})
_OLD_SECONDS = 7 * 86_400.0
_MOST_OF_A_STAMP = 100
Holds: TypeAlias = dict[Path, int]  # locks by their files
_held: Holds = {}  # those of this process; they end with it


class NodeCache:
    """Verified artifacts in a folder of this machine, each under its digest."""

    def __init__(
        self, root: Path, most_bytes: int = MOST_BYTES, holds: Holds | None = None
    ) -> None:
        """Use `root`; it is made when something is put there.

        What is asked for is held in `holds`, else until this process ends.
        """
        self.root = root
        self._most = most_bytes
        self._holds = _held if holds is None else holds

    def folder(self, manifest: Manifest, fill: Callable[[Path], None]) -> Path:
        """Return the folder with an artifact: as it was verified, or filled anew by `fill`.

        `fill` gets a folder that does not exist, beside the one that it will be.
        """
        digest = manifest.digest
        target = self.root / digest
        self.root.mkdir(parents=True, exist_ok=True)
        self._remove_half_filled()
        with _locked(self.root / f".{digest}.fill"):
            self._hold(digest)
            if not self._as_verified(digest, manifest):
                self._fill(manifest, fill)
            with suppress(OSError):
                os.utime(self._stamp(digest))
        return target

    def files(
        self, manifest: Manifest, paths: Collection[str], fetch: Callable[[str, Path], None]
    ) -> tuple[Path, frozenset[str]]:
        """Return the folder with `paths` of an artifact, and which of them came by `fetch` now.

        `fetch` puts one where it is told to, and verifies it.
        """
        digest = manifest.digest
        self.root.mkdir(parents=True, exist_ok=True)
        self._remove_half_filled()
        with _locked(self.root / f".{digest}.fill"):
            self._hold(digest)
            verified = self._still_verified(digest)
            missing = [path for path in paths if path not in verified]
            size = sum(manifest.files[path].size for path in missing if path in manifest.files)
            if missing:
                add = partial(self._add, digest, missing, verified, fetch)
                self._with_room(size, add)
            with suppress(OSError):
                os.utime(self._stamp(digest))
        return self.root / digest, frozenset(missing)

    def _add(
        self,
        digest: str,
        missing: Collection[str],
        verified: dict[str, list[int]],
        fetch: Callable[[str, Path], None],
    ) -> None:
        """Put what is `missing` among what is `verified`; each is there as soon as it has come."""
        work = Path(tempfile.mkdtemp(prefix=f".{digest}-", dir=self.root))
        try:
            for path in [path for path in missing if path not in verified]:
                target = self.root / digest / path
                fetch(path, work / "fresh")
                target.parent.mkdir(parents=True, exist_ok=True)
                (work / "fresh").replace(target)
                verified[path] = _time(target)
                self._stamp(digest).write_text(json.dumps(verified), encoding="utf-8")
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _still_verified(self, digest: str) -> dict[str, list[int]]:
        """Return size and time of those files that nobody has touched since they were verified."""
        try:
            then = json.loads(self._stamp(digest).read_text(encoding="utf-8"))
            now = _times(self.root / digest)
        except (OSError, ValueError):
            return {}
        return {path: now[path] for path in now.keys() & then.keys() if now[path] == then[path]}

    def _fill(self, manifest: Manifest, fill: Callable[[Path], None]) -> None:
        """Have a fresh folder filled; where the disk is full, again with all room there can be."""
        self._with_room(manifest.size, partial(self._filled, manifest.digest, fill))

    def _with_room(self, size: int, put: Callable[[], None]) -> None:
        self._make_room(size)
        try:
            put()
        except OSError as error:
            if error.errno not in FULL or not self._make_room(size, at_once=True):
                raise
            put()

    def _filled(self, digest: str, fill: Callable[[Path], None]) -> None:
        """Have a fresh folder filled, and put it in the place of what was there."""
        target = self.root / digest
        work = Path(tempfile.mkdtemp(prefix=f".{digest}-", dir=self.root))
        try:
            fill(work / "fresh")
            with suppress(FileNotFoundError):
                target.rename(work / "before")
            (work / "fresh").rename(target)
            self._stamp(digest).write_text(json.dumps(_times(target)), encoding="utf-8")
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _remove_half_filled(self) -> None:
        """Remove what processes that were killed have left: nobody holds a lock of that."""
        for left in self.root.glob(".*-*/"):
            digest = left.name[1:].partition("-")[0]
            with suppress(OSError), _locked(self.root / f".{digest}.fill", wait=False):
                shutil.rmtree(left, ignore_errors=True)
        sweep(self.root.parent, SCRATCH)

    def distrust(self, manifest: Manifest) -> None:
        """Have the files of an artifact downloaded anew when they are asked for next."""
        with _locked(self.root / f".{manifest.digest}.fill"):
            self._stamp(manifest.digest).unlink(missing_ok=True)

    def _stamp(self, digest: str) -> Path:
        return self.root / f".{digest}.verified"

    def _use(self, digest: str) -> Path:
        return self.root / f".{digest}.used"

    def _hold(self, digest: str) -> None:
        path = self._use(digest)
        if path not in self._holds:
            self._holds[path] = _lock(path, fcntl.LOCK_SH)

    def _as_verified(self, digest: str, manifest: Manifest) -> bool:
        """Whether all files are there, and none was touched since they were verified."""
        try:
            known = json.loads(self._stamp(digest).read_text(encoding="utf-8"))
            times = _times(self.root / digest)
        except (OSError, ValueError):
            return False
        return bool(known == times) and times.keys() - {MANIFEST_NAME} == manifest.files.keys()

    # --- room ----------------------------------------------------------------------------------

    def _make_room(self, size: int, *, at_once: bool = False) -> bool:
        """Remove what nobody holds, longest unused first, until there is room for so much more.

        With `at_once` all of it goes. Returns whether anything has gone.
        """
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        total = sum(held for _, held, _ in entries)
        free = shutil.disk_usage(self.root).free
        removed = False
        for _, held, digest in entries:
            if not at_once and total + size <= self._most and free >= size:
                break
            if self._forget(digest):
                total, free, removed = total - held, free + held, True
        return removed

    def sweep(self, before: float, *, dry: bool) -> int:
        """Remove what nobody holds and nobody used since `before` (seconds, epoch).

        Returns its bytes; in a `dry` run those of all that is so old, and nothing is removed.
        """
        old = [entry for entry in self._entries() if entry[0] < before]
        return sum(size for _, size, digest in old if dry or self._forget(digest))

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """Yield when each artifact was used last, its size, and its digest."""
        for stamp in self.root.glob(".*.verified"):
            with suppress(OSError, ValueError):
                times = json.loads(stamp.read_text(encoding="utf-8"))
                size = sum(int(entry[0]) for entry in times.values())
                yield stamp.stat().st_mtime, size, stamp.name[1:].removesuffix(".verified")

    def _forget(self, digest: str) -> bool:
        """Remove an artifact with the files of its locks, unless somebody uses it."""
        used, fill = self._use(digest), self.root / f".{digest}.fill"
        try:
            with _locked(fill, wait=False), _locked(used, wait=False):
                self._stamp(digest).unlink(missing_ok=True)
                shutil.rmtree(self.root / digest, ignore_errors=True)
                used.unlink()
                fill.unlink()
        except OSError:
            return False
        return True


def let_go(holds: Holds) -> None:
    """Hold nothing of `holds` any more."""
    while holds:
        _, handle = holds.popitem()
        os.close(handle)


def verify_once(root: Path, folder: Path, key: str, verify: Callable[[], object]) -> None:
    """Have `folder` verified, once by all processes of this machine that say the same `key`.

    The others wait for the first; who finds the files touched since verifies them again. What is
    known of that stands in the cache at `root`.
    """
    _drop_old(root)
    name = hashlib.sha256(f"{key}\0{folder}".encode()).hexdigest()
    with _locked(root / f"{_ONCE}{name}") as handle:
        known = os.pread(handle, _MOST_OF_A_STAMP, 0)
        if known != _stamp_of(folder):
            verify()
            os.ftruncate(handle, 0)
            os.pwrite(handle, _stamp_of(folder), 0)


def _stamp_of(folder: Path) -> bytes:
    return hashlib.sha256(json.dumps(_times(folder)).encode()).hexdigest().encode()


def _drop_old(root: Path) -> None:
    """Remove the stamps of attempts that are over for long, as far as this machine can tell."""
    files = {path: _changed(path) for path in root.glob(f"{_ONCE}*")}
    newest = max(files.values(), default=0.0)
    for path, changed in files.items():
        if newest - changed > _OLD_SECONDS:
            path.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _times(folder: Path) -> dict[str, list[int]]:
    """Return size and time of the last change of all files; Python adds its own to code."""
    return {path: _time(folder / path) for path in sorted(regular_files(folder, apart=_COMPILED))}


def _time(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock of a file; raises BlockingIOError where another does and we don't `wait`."""
    handle = _lock(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(path: Path, how: int) -> int:
    """Return a handle that holds the lock of the file that `path` names: it may be removed."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, how)
            if _is_named(path, handle):
                return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _is_named(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def parent_of(folder: str) -> Path:
    """Return the folder of this host that is meant by `folder`, where it may be empty."""
    return Path(folder).expanduser() if folder else Path(tempfile.gettempdir())


def cache_root(folder: str = "") -> Path:
    """Return the folder of the cache of this user on this machine, in `folder`.

    Where somebody else has put something there, it is one of this process alone.
    """
    parent = parent_of(folder)
    root = parent / f"orchestrator-cache-{os.getuid()}"
    parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
        return root
    return ScratchFolder(parent, SCRATCH).path
