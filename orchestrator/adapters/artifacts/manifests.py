"""Manifests as files, the names that artifacts and their files may have, and hashing.

A manifest is not trusted: its paths could lead out of the artifact, its figures could be anything.
A seal over all that it says makes a change of any byte show.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from orchestrator.core.artifact import MANIFEST_NAME, FileEntry, Manifest
from orchestrator.core.errors import ArtifactError, DamagedError

_FORBIDDEN = frozenset("\\\0\n\r")
_parser = TypeAdapter(dict[str, object])
_files_parser = TypeAdapter(dict[str, FileEntry])
_meta_parser = TypeAdapter(dict[str, str])


def check_name(name: str, what: str) -> str:
    """Return `name` if it is a relative POSIX path that stays where it is put.

    Raises:
        ArtifactError: It is absolute, climbs out, or isn't in its shortest form.
    """
    parts = PurePosixPath(name).parts
    plain = "/".join(parts) == name and name not in ("", ".") and not name.startswith("/")
    if not plain or ".." in parts or _FORBIDDEN & set(name) or not _encodes(name):
        message = f"{what} {name!r} is no plain relative path; use names divided by '/'"
        raise ArtifactError(message)
    return name


def check_artifact_name(name: str) -> str:
    """Return `name` if an artifact may have it; names with a leading dot are the store's own."""
    check_name(name, "artifact")
    if any(part.startswith(".") for part in name.split("/")):
        message = f"artifact {name!r} has a part that begins with a dot; leave that out"
        raise ArtifactError(message)
    return name


def hash_stream(stream: BinaryIO) -> FileEntry:
    """Return size and SHA-256 of what is left of `stream`."""
    seen = hashlib.sha256()
    size = 0
    while block := stream.read(1 << 20):
        seen.update(block)
        size += len(block)
    return FileEntry(size, seen.hexdigest())


def write(manifest: Manifest) -> bytes:
    """Return the text of the manifest file."""
    content = _content(manifest)
    return json.dumps({**content, "seal": _seal(content)}, indent=1, sort_keys=True).encode()


def read(text: bytes, name: str) -> Manifest:
    """Return the manifest of artifact `name` that `text` holds.

    Raises:
        DamagedError: It is torn or altered.
        ArtifactError: It leads out of the artifact.
    """
    try:
        content = _parser.validate_python(json.loads(text), strict=True)
        files = _files_parser.validate_python(content.get("files"))
        manifest = Manifest(files, _meta_parser.validate_python(content.get("meta")))
    except (ValidationError, ValueError, RecursionError) as error:
        raise DamagedError(f"artifact {name!r} has a torn manifest; make it again") from error
    if content.get("seal") != _seal(_content(manifest)):
        raise DamagedError(f"artifact {name!r} has an altered manifest; make it again")
    for path in files:
        check_name(path, f"artifact {name!r}: file")
    return manifest


def compare_names(manifest: Manifest, stored: frozenset[str], name: str) -> None:
    """Refuse an artifact that has fewer or more files than its manifest says.

    Raises:
        DamagedError: Names the first file that is missing or too much.
    """
    known = frozenset(manifest.files)
    for word, paths in (("lacks", known - stored), ("has unknown", stored - known)):
        if paths:
            message = f"artifact {name!r} {word} file {min(paths)!r}; make it again"
            raise DamagedError(message)


def compare_file(expected: FileEntry, stored: FileEntry, path: str, name: str) -> None:
    """Refuse a file whose contents differ from what its manifest says.

    Raises:
        DamagedError: Names the file, with both sizes or both hashes.
    """
    if stored != expected:
        says, has = expected.sha256[:12], stored.sha256[:12]
        if stored.size != expected.size:
            says, has = f"{expected.size} bytes", f"{stored.size} bytes"
        message = f"artifact {name!r}: file {path!r} has {has}, not {says}; make it again"
        raise DamagedError(message)


def _content(manifest: Manifest) -> dict[str, Mapping[str, object]]:
    files = {
        path: {"size": entry.size, "sha256": entry.sha256}
        for path, entry in manifest.files.items()
    }
    return {"files": files, "meta": dict(manifest.meta)}


def _seal(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _encodes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def reserved(path: str) -> bool:
    """Whether `path` is the manifest's own, which no job may write."""
    return path == MANIFEST_NAME
