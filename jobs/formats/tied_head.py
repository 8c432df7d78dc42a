"""Whether the head of a folder is its embeddings: configs say so of heads that are others too.

transformers does not tie a head that a folder holds beside other embeddings, whatever the config
says. Engine servers believe the config, and would take the embeddings for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from jobs.formats.choice import QuantizationChoice, choose
from jobs.formats.folder import Folder, pieces

_TIES = "tie_word_embeddings"
_TOGETHER = 128  # rows, a multiple of what shares a scale in any format


def has_own_head(source: Folder, choice: QuantizationChoice) -> bool:
    """Return whether the head that a folder has beside its embeddings differs from them.

    Where the config says that they differ, nothing is read: the answer is no.
    """
    return any(_differ(source, *pair) for pair in choice.tied)


def config_as_stored(folder: Path) -> Any:  # noqa: ANN401 - a transformers config
    """Return the config of a folder, which says of its head what is so."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if ties(config):
        source = Folder(folder)
        stored = {name for name in source.specs if source.is_quantized(name)}
        if has_own_head(source, choose(config, source.specs, stored=stored)):
            untie(config)
    return config


def ties(config: Any) -> bool:  # noqa: ANN401 - a transformers config
    """Return whether a config says that the head is the embeddings."""
    return any(getattr(part, _TIES, False) for part in (config, config.get_text_config()))


def untie(config: Any) -> None:  # noqa: ANN401 - a transformers config
    """Have a config say that the head is no other's weight."""
    for part in (config, config.get_text_config()):
        if getattr(part, _TIES, False):
            part.tie_word_embeddings = False


def _differ(source: Folder, name: str, other: str) -> bool:
    """Return whether two tensors of a folder are not the same numbers."""
    spec = source.specs[name]
    if spec.shape != source.specs[other].shape:
        return True
    return any(
        not torch.equal(source.rows(name, *rows).float(), source.rows(other, *rows).float())
        for rows in pieces(spec, _TOGETHER)
    )
