"""Which place a storage URI names, and who sees it, without asking the storage.

As fsspec reads it: a path, `PROTOCOL://...`, or a chain of them by `::`; the bytes lie where its
last link says.
"""

from __future__ import annotations

import os.path
import re
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote

_LINK = "::"
_SCHEME = "://"
_FILES = re.compile(r"(file|local):(?://)?")
_FILE = frozenset({"", "file", "local"})
_MEMORY = "memory"
# What lies over another storage; alone it lies over the files of this host.
_OVER = frozenset(
    {"blockcache", "cached", "dir", "filecache", "libarchive", "simplecache", "tar", "zip"}
)
_READ_ONLY = frozenset(
    {"data", "git", "github", "http", "https", "jlab", "libarchive", "reference", "tar", "zip"}
)
_AZURE = re.compile(r"[a-z0-9$](?:-?[a-z0-9])*(?:@.+)?")
# What a storage calls a bucket, or a container.
_BUCKETS = {
    **dict.fromkeys(("s3", "s3a"), re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|arn:.+")),
    **dict.fromkeys(("gs", "gcs"), re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")),
    **dict.fromkeys(("abfs", "abfss", "az"), _AZURE),
    "oss": re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"),
}


class Sight(StrEnum):
    """Who sees a storage: any host that is let in, the own host alone, or one process of it."""

    EVERYWHERE = "everywhere"
    HOST = "host"
    PROCESS = "process"


def seen_by(uri: str) -> Sight:
    """Return who sees what lies at `uri`; an empty one is a folder of the home."""
    protocols = [_protocol(link) for link in _links(uri)]
    if _MEMORY in protocols:
        return Sight.PROCESS
    if protocols[-1] in _FILE or protocols[-1] in _OVER:
        return Sight.HOST
    return Sight.EVERYWHERE


def local_folder(uri: str) -> Path | None:
    """Return the folder that `uri` names; `None` where it is a storage of another kind."""
    if len(_links(uri)) > 1 or _protocol(uri) not in _FILE:
        return None
    prefix = _prefix(uri)
    path = uri.removeprefix(prefix)
    return Path(unquote(path) if prefix else path).absolute()


def absolute(uri: str, folder: Path) -> str:
    """Return `uri` with the path of a file in it absolute, as seen from `folder`."""
    last = _links(uri)[-1]
    prefix = _prefix(last)
    path = last.removeprefix(prefix)
    if not path or path.startswith("/") or _protocol(last) not in _FILE:
        return uri
    return uri.removesuffix(last) + prefix + os.path.normpath(folder / path)


def protocols(uri: str) -> list[str]:
    """Return what fsspec knows the file systems of a chain by, the outermost first."""
    return [_protocol(link) or "file" for link in _links(uri)]


def read_only(uri: str) -> str:
    """Return the protocol by which nothing can be written at `uri`; empty where there is none."""
    return next((name for name in protocols(uri) if name in _READ_ONLY), "")


def bucket_objection(uri: str) -> str:
    """Return why `uri` names no bucket, and the way out; empty where it does or needs none."""
    for link in _links(uri):
        name = _protocol(link)
        if name not in _BUCKETS:
            continue
        bucket = link.removeprefix(f"{name}{_SCHEME}").partition("/")[0]
        if not bucket:
            return f"{uri!r} names no bucket; write {name}{_SCHEME}BUCKET/..."
        if not _BUCKETS[name].fullmatch(bucket):
            return f"{bucket!r} is no name of a bucket; it has small letters, digits and '-'"
    return ""


def _links(uri: str) -> list[str]:
    """Return what a chain consists of; a link that is a word alone is a protocol."""
    first, *rest = uri.split(_LINK)
    if not rest or not (first.isalnum() or _SCHEME in first):
        return [uri]
    return [link + _SCHEME if link.isalnum() else link for link in (first, *rest)]


def _protocol(link: str) -> str:
    """Return the protocol of one link; empty of a path."""
    files = _FILES.match(link)
    name, scheme, _ = link.partition(_SCHEME)
    return files[1] if files else name if scheme else ""


def _prefix(link: str) -> str:
    files = _FILES.match(link)
    return files[0] if files else ""
