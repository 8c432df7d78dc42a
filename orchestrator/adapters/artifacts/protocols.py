"""Which place a URI names, and how the file system of its kind is used.

What differs between kinds of storage is a row of `_TRAITS`. What the user has set for fsspec
(`FSSPEC_S3_ENDPOINT_URL`, its configuration files) goes before what stands here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestrator.adapters.artifacts.local_place import LocalPlace
from orchestrator.adapters.artifacts.places import StoragePlace
from orchestrator.adapters.artifacts.remote_place import RemotePlace, Traits
from orchestrator.core import storage_uris
from orchestrator.core.errors import StorageSetUpError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_FILE_SCHEME = "file://"
_PART = 8 << 20  # bytes of a part of a large file, of which four are under way
_S3 = Traits(
    buckets=True,
    part=_PART,
    options=MappingProxyType(
        {
            "use_listings_cache": False,  # others write there too
            "skip_instance_cache": True,  # what follows in this process may have other credentials
            "max_concurrency": 4,
            "default_block_size": _PART,
            "config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 3}},
        }
    ),
)
_BUCKETS = Traits(buckets=True)
_TRAITS: Mapping[str, Traits] = MappingProxyType(
    {
        **dict.fromkeys(("s3", "s3a"), _S3),
        **dict.fromkeys(("gs", "gcs", "abfs", "abfss", "az", "oss"), _BUCKETS),
    }
)
_EXTRAS: Mapping[str, str] = MappingProxyType({"s3": "s3", "s3a": "s3"})


def open_place(uri: str) -> tuple[StoragePlace, str]:
    """Return where the artifacts of `uri` lie, and the base of their own URIs.

    Raises:
        StorageSetUpError: fsspec doesn't know the URI, or lacks the package for it.
    """
    folder = storage_uris.local_folder(uri)
    if folder is not None:
        named = uri.rstrip("/") if uri.startswith("local:") else f"{_FILE_SCHEME}{folder}"
        return LocalPlace(folder), named
    lacks = lacking(uri)
    if lacks:
        raise StorageSetUpError(f"storage.uri {lacks}")
    try:
        fs, root = open_files(uri)
    except Exception as error:
        message = f"storage.uri {uri!r} can't be opened: {_line(error)}"
        raise StorageSetUpError(message) from error
    return RemotePlace(fs, root, _traits(uri)), uri.rstrip("/")


def open_files(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of `uri`, used as that of its kind is, and the path there.

    Raises whatever fsspec and the client of the storage raise.
    """
    from fsspec.config import conf
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(
        uri, **{**_traits(uri).options, **conf.get(storage_uris.protocols(uri)[0], {})}
    )
    return fs, root


def lacking(uri: str) -> str:
    """Return why this Python can't open `uri`, and the way out, without asking the storage."""
    if storage_uris.local_folder(uri) is not None:
        return ""
    for protocol in storage_uris.protocols(uri):
        lacks = _lacking(uri, protocol)
        if lacks:
            return lacks
    return ""


def _lacking(uri: str, protocol: str) -> str:
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f"install orchestrator[{extra}] there" if extra else _line(error)
        return f"{uri!r} can't be opened by {sys.executable}, which lacks its package; {hint}"
    except ValueError as error:
        return f"{uri!r} can't be opened: {_line(error)}; {_hint(protocol)}"
    return ""


def _hint(protocol: str) -> str:
    """Return the way out where fsspec doesn't know a protocol."""
    from fsspec.registry import known_implementations

    if protocol.lower() in known_implementations:
        return f"write {protocol.lower()}://"
    mounted = "or mount it on all hosts, name the folder and set storage.shared=true"
    return f"name what fsspec knows, as s3://BUCKET/..., {mounted}"


def _traits(uri: str) -> Traits:
    return _TRAITS.get(storage_uris.protocols(uri)[0], Traits())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
