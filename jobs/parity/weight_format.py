"""In which format the weights of a model folder are: what its `config.json` says."""

from __future__ import annotations

from pathlib import Path

from jobs.formats import modelslim, records, safety


def form_of(folder: Path) -> str:
    """Return the format of the weights in `folder`, by its name in configs.

    Raises:
        ValueError: The folder has no config, or one of a format that is not known.
    """
    config = safety.read_json(folder / safety.CONFIG)
    return records.form_of(config, modelslim.scheme_in(folder))
