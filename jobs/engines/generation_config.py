"""What a folder's `generation_config.json` says of answers, as vLLM's server reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

FILE = "generation_config.json"
# Names of the file, and of `Sampling`. `do_sample` says what `generate` of transformers does by
# default, and nothing of a server's answers.
FIELDS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}


def defaults_of(folder: Path) -> Mapping[str, float]:
    """Return the fields of `Sampling` that a folder sets, for requests that say nothing else.

    Raises:
        ValueError: A field is no number.
    """
    try:
        config = json.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    defaults: dict[str, float] = {}
    for name, field in FIELDS.items():
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name}={value!r} in {str(folder / FILE)!r} is no number")  # noqa: TRY004 - the file's fault
        defaults[field] = value
    return defaults
