"""What the config of a model says of its limits, and the types that no engine here runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ANY_LENGTH = 1 << 20  # tokens: of a type that names no limit

# Types whose answers are none of a causal language model's, and why.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "hrm_text": "it reads a prompt both ways where `token_type_ids` say so, which engines "
        "do each in their own way and no client can say",
    }
)


def check_type(config: Any) -> None:  # noqa: ANN401 - a transformers config
    """Refuse a type that is no causal language model to engines.

    Raises:
        ValueError: It is one of `REFUSED`.
    """
    why = REFUSED.get(config.model_type)
    if why:
        raise ValueError(f"models of type {config.model_type!r} are not served: {why}")


def vocabulary_of(config: Any) -> int:  # noqa: ANN401 - as above
    """Return how many tokens a model has; of several parts, that of the text."""
    return int(_of_text(config, "vocab_size"))


def context_of(config: Any) -> int:  # noqa: ANN401 - as above
    """Return how many tokens a model has places for."""
    return int(_of_text(config, "max_position_embeddings") or ANY_LENGTH)


def _of_text(config: Any, name: str) -> Any:  # noqa: ANN401 - as above
    """Return a field of the whole, else of its text; `None` where neither has it."""
    own = getattr(config, name, None)
    return own if own is not None else getattr(config.get_text_config(), name, None)
