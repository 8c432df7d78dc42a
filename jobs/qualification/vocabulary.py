"""Stands for a tokenizer where a model is made without one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What models ask of a tokenizer: how many tokens, and which of them mean something."""

    size: int = 256
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.size
