"""The tokens that end an answer, as a model's folder says."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from jobs.data.tokenizer import load_tokenizer
from jobs.engines.model_tokenizer import ends_of


def ends_in_folder(folder: Path) -> tuple[int, ...]:
    """Return the tokens that end an answer of the model in `folder`, in order."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    generation = GenerationConfig.from_model_config(config)
    if (folder / GENERATION_CONFIG_NAME).exists():
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    vocabulary = config.get_text_config().vocab_size
    return tuple(sorted(ends_of(load_tokenizer(folder), generation, vocabulary)))
