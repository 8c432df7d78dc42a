"""What a folder says of the answers of its model, and what its export says of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import GENERATION_CONFIG_NAME

from jobs.data.tokenizer import load_tokenizer
from jobs.formats.safety import read_json

# Fields that say how the file was written.
_ASIDE = ("transformers_version", "_from_model_config")


def generation_fields(folder: Path) -> dict[str, Any]:
    """Return what the generation config of an export of `folder` says.

    It is that of the folder. Where that has none it is the tokens that begin, end and fill a
    text, as config and tokenizer name them.

    Raises:
        ValueError: The file is no JSON object.
        OSError: The tokenizer can't be read.
    """
    if (folder / GENERATION_CONFIG_NAME).exists():
        fields = read_json(folder / GENERATION_CONFIG_NAME)
        return {name: value for name, value in fields.items() if name not in _ASIDE}
    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    tokenizer = load_tokenizer(folder)
    ends = _several(getattr(config, "eos_token_id", None))
    ends += [end for end in _several(tokenizer.eos_token_id) if end not in ends]
    special_tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": tokenizer.pad_token_id,
    }
    return {name: value for name, value in special_tokens.items() if value is not None}


def write_generation_config(source: Path, folder: Path) -> None:
    """Write what an export of `source` says into `folder`.

    Raises:
        ValueError: As `generation_fields`.
        OSError: As `generation_fields`, or the file can't be written.
    """
    file, target = source / GENERATION_CONFIG_NAME, folder / GENERATION_CONFIG_NAME
    if file.exists():
        shutil.copyfile(file, target)
    else:
        target.write_text(f"{json.dumps(generation_fields(source))}\n", "utf-8")


def _several(ends: int | list[int] | None) -> list[int]:
    if ends is None:
        return []
    return [ends] if isinstance(ends, int) else list(ends)
