"""In which format the weights of a model folder are: what its `config.json` says."""

from __future__ import annotations

from pathlib import Path

from jobs.formats import modelslim, records, safety
from jobs.formats.folder import Folder


def form_of(folder: Path) -> str:
    """Return the format of the weights in `folder`, by its name in configs.

    Raises:
        ValueError: The folder has no config, or one of a format that is not known.
    """
    config = safety.read_json(folder / safety.CONFIG)
    return records.form_of(config, modelslim.scheme_in(folder))


def unquantized_in(folder: Path) -> frozenset[str]:
    """Return the names of the tensors in `folder` that are stored as numbers of their own."""
    source = Folder(folder)
    return frozenset(name for name in source.specs if not source.is_quantized(name))
