"""Between text and tokens, by the tokenizer of a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from jobs.engines.generation_config import ends_in
from jobs.engines.token_bytes import TokenBytes


class Tokenizer:
    """A tokenizer.

    Attributes:
        foreign: The one of transformers.
        bytes: What each token stands for.

    Raises:
        OSError: It can't be read.
    """

    def __init__(self, model_folder: Path) -> None:
        self.foreign: Any = AutoTokenizer.from_pretrained(str(model_folder), local_files_only=True)
        self._backend: Any = getattr(self.foreign, "backend_tokenizer", None)
        self.bytes = TokenBytes(self.foreign)
        self._longest = max(map(len, self.foreign.get_vocab()), default=1)

    def check_length(self, characters: int, max_context: int) -> None:
        """Refuse a text before it is read, which takes seconds for one of megabytes.

        Raises:
            ValueError: No context holds so many characters, whatever tokens they are.
        """
        most = self._longest * max_context
        if characters > most:
            raise ValueError(
                f"{characters} characters are more than max_context={max_context} tokens hold, "
                f"which are {most} at most"
            )

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the model expects."""
        ids: list[int] = self.foreign(text, add_special_tokens=special)["input_ids"]
        return ids

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Return the text of a chat, up to where the answer begins.

        Raises:
            ValueError: There is no template, or it refuses these messages.
        """
        if not self.foreign.chat_template:
            raise ValueError("this model has no chat template; ask /v1/completions instead")
        try:
            text: str = self.foreign.apply_chat_template(
                [dict(message) for message in messages],
                **{"add_generation_prompt": True, **(variables or {})},
                tokenize=False,
            )
            text.encode()  # half of a surrogate pair is no text
        except Exception as error:  # the template is the model's code, and may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"the chat template refuses these messages: {reason}") from error
        return text

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Return the text of `tokens`, without special ones unless those are asked for."""
        if self._backend is not None:  # the wrapper around it costs more than it
            text: str = self._backend.decode(tokens, skip_special_tokens=not special)
            return text
        plain: str = self.foreign.decode(
            tokens, skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return plain

    def named(self, token: int) -> str:
        """Return the name of an added token in brackets; nothing of any other number."""
        added = self.foreign.added_tokens_decoder.get(token)
        return f" ({added.content!r})" if added is not None else ""

    def ends(self, generation_config: Any, vocabulary: int) -> frozenset[int]:  # noqa: ANN401 - foreign and untyped
        """Return the tokens that end an answer: all that the model's config names, and ours."""
        return ends_of(self.foreign, generation_config, vocabulary)


def ends_of(tokenizer: Any, generation_config: Any, vocabulary: int) -> frozenset[int]:  # noqa: ANN401 - as above
    """Return the tokens that end an answer: all that a config names, and the tokenizer's own."""
    configured = ends_in(getattr(generation_config, "eos_token_id", None))
    own = tokenizer.eos_token_id
    ends = configured if own is None else configured | {own}
    return frozenset(token for token in ends if 0 <= token < vocabulary)
