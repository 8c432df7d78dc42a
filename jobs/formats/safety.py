"""Which files of a model folder are read, and what is refused before any of them is.

A folder may come from anywhere. Pickles are never opened, an index can't name a file elsewhere,
and where the folder has a manifest every file that is read must have the hash that it says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MANIFEST = "manifest.json"
WEIGHTS = "*.safetensors"
DIVIDED = "shard-*.safetensors"  # as torch.distributed.checkpoint names parts of tensors
MISTRALS = "consolidated"  # how the names of its own files begin
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
LONGEST_JSON = 100_000_000  # bytes, as the header of a safetensors file
_THREADS = min(os.cpu_count() or 1, 16)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ValueError: It is missing, too long, or holds something else.
    """
    try:
        if file.stat().st_size > LONGEST_JSON:
            raise ValueError(f"{str(file)!r} is longer than {LONGEST_JSON:,} bytes")
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{str(file)!r} can't be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} holds no JSON object")  # noqa: TRY004 - the file's fault
    return content


def files_of(folder: Path) -> tuple[list[Path], Mapping[str, str]]:
    """Return the files of weights of a folder, and which tensor its index says is in which.

    Readers differ in what they take of a folder that has more: all that there is, or the single
    file in place of the index. Where there is neither, the parts of tensors are taken. What
    Mistral publishes beside its models is passed over.

    Raises:
        ValueError: There are none, the index leads out of the folder, or there is a file of
            weights that it does not name, or that is no part among parts.
    """
    names = _indexed(folder) if (folder / INDEX).exists() else {}
    in_parts = is_divided(folder)
    if not names and not in_parts and not (folder / SINGLE).exists():
        raise ValueError(f"there is no {SINGLE} in {str(folder)!r}{_pickled(folder)}")
    parts = {file.name for file in folder.glob(DIVIDED)} if in_parts else set[str]()
    files = sorted({*names.values()} or parts or {SINGLE})
    if len(files) > 1 and (folder / SINGLE).exists():
        raise ValueError(
            f"{str(folder)!r} has both {SINGLE} and {INDEX}; remove the one that is not meant"
        )
    others = {file.name for file in folder.glob(WEIGHTS)} - {*files}
    strays = sorted(name for name in others if not name.startswith(MISTRALS))
    if strays:
        place = DIVIDED if in_parts else INDEX if names else SINGLE
        raise ValueError(
            f"{str(folder / strays[0])!r} is a file of weights that {place} does not name; "
            f"remove it"
        )
    return [folder / name for name in files], names


def is_divided(folder: Path) -> bool:
    """Whether a folder holds nothing but parts of tensors."""
    whole = (folder / INDEX).exists() or (folder / SINGLE).exists()
    return not whole and any(folder.glob(DIVIDED))


def _indexed(folder: Path) -> Mapping[str, str]:
    """Return the file of each tensor, as the index of a folder says.

    Raises:
        ValueError: It says nothing, or leads out of the folder.
    """
    said = read_json(folder / INDEX).get("weight_map")
    if not isinstance(said, dict) or not said:
        raise ValueError(f"{str(folder / INDEX)!r} has no weight_map")
    names = {str(tensor): str(file) for tensor, file in said.items()}
    for tensor, name in names.items():
        if not _is_plain(name):
            raise ValueError(
                f"{str(folder / INDEX)!r} has tensor {tensor} in {name!r}, "
                f"which is no safetensors file of this folder"
            )
    return names


def check_hashes(folder: Path, files: Sequence[Path]) -> None:
    """Check files against the manifest of their folder, where the artifact store has left one.

    Raises:
        ValueError: A file is not in it, or has another size or hash; or one of those that hold
            parts of tensors is gone.
    """
    if not (folder / MANIFEST).exists():
        return
    said = read_json(folder / MANIFEST)
    known = said.get("files")
    if not isinstance(known, dict) or "seal" not in said:
        return  # somebody else's file of that name
    parts = [name for name in sorted(known) if fnmatchcase(name, DIVIDED)]
    gone = [name for name in parts if not (folder / name).is_file()]
    if gone and is_divided(folder):
        raise ValueError(
            f"{str(folder / gone[0])!r} is missing, which its manifest names; fetch it again"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = pool.map(_hashed, files)
        for file, entry in zip(files, entries, strict=True):
            if known.get(file.name) != entry:
                raise ValueError(f"{str(file)!r} is not as its manifest says; fetch it again")


def _hashed(file: Path) -> dict[str, object]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _is_plain(name: str) -> bool:
    return PurePath(name).name == name and name.endswith(".safetensors") and "\\" not in name


def _pickled(folder: Path) -> str:
    pickles = sorted(path.name for kind in PICKLES for path in folder.glob(kind))
    return f"; {pickles[0]!r} may be a pickle, which is never opened" if pickles else ""
