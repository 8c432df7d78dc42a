"""What a folder's `generation_config.json` says of answers, as vLLM's server reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
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


# What makes sense of each: outside it every answer would fail.
_BOUNDS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda value: 0 <= value < math.inf, "0 or more"),
    "top_p": (lambda value: 0 < value <= 1, "over 0, and 1 at most"),
    "top_k": (lambda value: value >= -1 and value == int(value), "a whole number, -1 or more"),
    "min_p": (lambda value: 0 <= value <= 1, "0 to 1"),
    "repetition_penalty": (lambda value: 0 < value < math.inf, "over 0"),
    "max_new_tokens": (lambda value: value >= 1 and value == int(value), "a whole number over 0"),
}


def defaults_of(folder: Path) -> Mapping[str, float]:
    """Return the fields of `Sampling` that a folder sets, for requests that say nothing else.

    Raises:
        ValueError: The file is no JSON object, or a field no number that makes sense.
    """
    try:
        config = json.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(config, dict):
        raise ValueError(f"{str(folder / FILE)!r} is no JSON object")  # noqa: TRY004 - the file's fault
    given = {name: config[name] for name in FIELDS if config.get(name) is not None}
    for name, value in given.items():
        fits, words = _BOUNDS[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and fits(value)):
            raise ValueError(f"{name}={value!r} in {str(folder / FILE)!r} should be {words}")
    return {FIELDS[name]: value for name, value in given.items()}


def ends_in(eos_token_id: object) -> frozenset[int]:
    """Return the tokens that a config names as ends of a text: one, several, or none.

    Raises:
        ValueError: They are no token ids.
    """
    several = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
    named = [token for token in several if token is not None]
    ends = [token for token in named if isinstance(token, int) and not isinstance(token, bool)]
    if len(ends) < len(named):
        raise ValueError(f"eos_token_id={eos_token_id!r} of the model should be token ids")
    return frozenset(ends)
