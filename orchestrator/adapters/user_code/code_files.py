"""The files of a folder that count as its code, with their digests.

All files do, data and prompts too, but for what `.gitignore` leaves out, what tools keep for
themselves, and virtual environments. Those travel with a run. Code that git ignores stays, and
counts in a digest all the same: where nothing travels, as in this process, it can be imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.adapters.user_code import gitignore
from orchestrator.supervisor import file_modes

_TOOLS = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv"}
    | {".hypothesis", ".ipynb_checkpoints", ".orchestrator", "node_modules"}
)
_CODE = frozenset({".py", ".so", ".pyd"})
_COMPILED = frozenset({".pyc", ".pyo"})
_SETTLED_NS = 2 * 10**9  # a file may change twice within a tick of its clock
_FIELDS = 3  # of what is remembered of a file: stamp, digest, imports
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)|import[ \t]+([\w., \t]+))"
    r"""|import_module\([ \t]*["']([A-Za-z_]\w*)""",
    re.MULTILINE,
)


class CodeFiles:
    """Reads folders; a file that did not change since the last command isn't read again.

    `kept` is the file in which that is remembered, `apart` are folders that hold no code, as the
    home, which changes with every run.
    """

    def __init__(self, kept: Path | None = None, apart: Sequence[Path] = ()) -> None:
        """Remember what the last command has read."""
        self._kept = kept
        self._apart = frozenset(path.resolve() for path in apart)
        self._digests, self._settled = _load(kept)
        self._seen: dict[str, Any] = {}

    def digest(self, folder: Path) -> tuple[str, frozenset[str]]:
        """Return the SHA-256 over the files in `folder`, and the modules that they import.

        Code that git ignores is among them: it does not travel, but can be imported here.
        """
        hashed, names = hashlib.sha256(), set[str]()
        for name, path in self._walk(folder, ignored_code=True):
            digest, imports = self.of(path)
            hashed.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
            names.update(imports)
        return hashed.hexdigest(), frozenset(names)

    def of(self, path: Path) -> tuple[str, Sequence[str]]:
        """Return the digest of one file, and the modules that it imports."""
        try:
            status = path.stat()
            stamp = [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]
            known = self._digests.get(str(path))
            fresh = known and known[0] == stamp and status.st_ctime_ns < self._settled
            self._seen[str(path)] = known if fresh else [stamp, *_read(path)]
        except OSError as error:
            return f"unreadable: {error.strerror}", ()
        _, digest, imports = self._seen[str(path)]
        return digest, imports

    @property
    def read(self) -> tuple[str, ...]:
        """The files that were looked at."""
        return tuple(self._seen)

    def keep(self) -> None:
        """Remember what was read for the next command, where there is room."""
        if self._kept is None or all(self._digests.get(k) == v for k, v in self._seen.items()):
            return
        new = self._kept.with_suffix(f".{os.getpid()}")
        try:
            file_modes.private_file(new).write_text(json.dumps(self._seen), "utf-8")
            new.replace(self._kept)
        except (OSError, ValueError):
            new.unlink(missing_ok=True)

    def below(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """Yield all files that travel by their path below `folder`, in a fixed order."""
        return self._walk(folder, ignored_code=False)

    def ignored_code(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """Yield the code below `folder` that stays here, since git ignores it."""
        travels = {name for name, _ in self.below(folder)}
        for name, path in self._walk(folder, ignored_code=True):
            if name not in travels:
                yield name, path

    def _walk(self, folder: Path, *, ignored_code: bool) -> Iterator[tuple[str, Path]]:
        code = _CODE if ignored_code else frozenset[str]()
        yield from self._below(folder, "", gitignore.above(folder), code, frozenset())

    def _below(
        self,
        folder: Path,
        prefix: str,
        rules: tuple[gitignore.Rule, ...],
        code: frozenset[str],
        ways: frozenset[Path],
    ) -> Iterator[tuple[str, Path]]:
        """Yield what counts in `folder`, by the rules above it; suffixes of `code` always do."""
        real = folder.resolve()
        if real in ways or real in self._apart or (folder / "pyvenv.cfg").exists():
            return  # a link that leads in a circle, or no code
        rules = (*rules, *gitignore.read(folder))
        try:
            paths = sorted(folder.iterdir(), key=lambda path: path.name)
        except OSError:
            yield prefix.rstrip("/"), folder  # which nobody can read
            return
        for path in paths:
            is_folder = path.is_dir()
            if _is_of_tools(path):
                continue
            ignored = gitignore.ignored(path, rules, is_folder=is_folder)
            if ignored and (is_folder or path.suffix not in code):
                continue
            if is_folder:
                yield from self._below(path, f"{prefix}{path.name}/", rules, code, ways | {real})
            elif path.is_file():
                yield f"{prefix}{path.name}", path


def _is_of_tools(path: Path) -> bool:
    return path.name in _TOOLS or path.suffix in _COMPILED or path.name.endswith(".egg-info")


def _read(path: Path) -> tuple[str, list[str]]:
    if path.suffix != ".py":
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest(), []
    contents = path.read_bytes()
    digest = hashlib.sha256(contents).hexdigest()
    names = set[str]()
    for module, several, dynamic in _IMPORT.findall(contents.decode("utf-8", "replace")):
        parts = (part.split()[0] for part in several.split(",") if part.strip())
        names.update((module, dynamic, *(part.partition(".")[0] for part in parts)))
    return digest, sorted(names - {""})


def _load(kept: Path | None) -> tuple[dict[str, Any], int]:
    """Return what is remembered, and the time (ns) before which what it says is settled."""
    try:
        if kept is None:
            return {}, 0
        read = json.loads(kept.read_text("utf-8"))
        known = read.items() if isinstance(read, dict) else ()
        whole = {k: v for k, v in known if isinstance(v, list) and len(v) == _FIELDS}
        return whole, kept.stat().st_mtime_ns - _SETTLED_NS
    except (OSError, ValueError):
        return {}, 0
