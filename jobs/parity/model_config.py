"""What a model's folder says of what it computes, and of the tokens that end an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import AutoConfig, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from jobs.data.tokenizer import load_tokenizer
from jobs.engines.model_tokenizer import ends_of
from jobs.engines.weights import ASIDE
from jobs.formats.records import KEY
from jobs.formats.tied_head import config_as_stored


def ends_in_folder(folder: Path) -> tuple[int, ...]:
    """Return the tokens that end an answer of the model in `folder`, in order."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    generation = GenerationConfig.from_model_config(config)
    if (folder / GENERATION_CONFIG_NAME).exists():
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    vocabulary = config.get_text_config().vocab_size
    return tuple(sorted(ends_of(load_tokenizer(folder), generation, vocabulary)))


def fields_in_folder(folder: Path) -> dict[str, object]:
    """Return the fields of the config in `folder` that say what the model computes.

    Of the head they say what is so.
    """
    config = config_as_stored(folder)
    fields: dict[str, object] = json.loads(config.to_json_string(use_diff=False))
    aside = {*ASIDE, KEY, "architectures", "auto_map"}
    return {name: value for name, value in fields.items() if name not in aside}


def other_fields(trained: Mapping[str, object], served: Mapping[str, object]) -> list[str]:
    """Return the fields of which both say something, and not the same; others are of versions."""
    return sorted(n for n in trained.keys() & served.keys() if trained[n] != served[n])


def other_generation_fields(
    trained: Mapping[str, object], served: Mapping[str, object]
) -> list[str]:
    """Return the fields of the generation configs that are not the same; none is of versions.

    A field that says nothing is as good as none. Ends of answers may be in any order.
    """
    names = sorted(trained.keys() | served.keys())
    return [name for name in names if _value_of(name, trained) != _value_of(name, served)]


def _value_of(name: str, fields: Mapping[str, object]) -> object:
    value = fields.get(name)
    if name != "eos_token_id" or value is None:
        return value
    return sorted(value) if isinstance(value, list) else [value]
