"""In which format the weights of a model folder are: what its `config.json` says."""

from __future__ import annotations

from pathlib import Path

from jobs.formats import modelslim, records, safety
from jobs.formats.schemes import FORMATS
from orchestrator.job import ParityError

JUDGED = (*FORMATS, "fp16")  # other tools than ours export in the last one


def form_of(folder: Path) -> str:
    """Return the format of the weights in `folder`, by its name in configs.

    Raises:
        ParityError: The folder has no config, or one of a format that is not judged.
    """
    try:
        config = safety.read_json(folder / safety.CONFIG)
        form = records.form_of(config, modelslim.scheme_in(folder))
    except ValueError as error:
        raise ParityError(f"what is served can't be read: {error}") from error
    if form not in JUDGED:
        raise ParityError(
            f"the weights in {str(folder)!r} are stored as {form!r}, in which nothing is judged; "
            f"export them in one of {', '.join(FORMATS)}"
        )
    return form
