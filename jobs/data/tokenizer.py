"""Trains small byte-level BPE tokenizers with a chat template.

Byte-level, so that any text can be encoded and decoded without loss. Digits are always tokens of
their own: a model that is to add numbers must see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}" + USER + "{{ message['content'] }}"
    "{%- elif message['role'] == 'assistant' -%}"
    + ASSISTANT
    + "{{ message['content'] }}"
    + END
    + "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}" + ASSISTANT + "{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, phrases: bool = False) -> Any:  # noqa: ANN401 - foreign type
    """Train a tokenizer on texts.

    Args:
        texts: What to learn the merges from.
        vocab_size: The most tokens, special tokens and the 256 bytes included.
        phrases: Let a token reach over spaces, so that a fixed wording becomes one token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not phrases),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def load_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - foreign type
    """Open the tokenizer in a folder, from that folder alone."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def encode_prompts(tokenizer: Any, questions: Sequence[str]) -> list[list[int]]:  # noqa: ANN401 - foreign type
    """Return the tokens of questions in the tokenizer's chat template, ready for an answer."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    return _encode(tokenizer, texts)


def encode_answers(tokenizer: Any, answers: Sequence[str]) -> list[list[int]]:  # noqa: ANN401 - foreign type
    """Return the tokens of answers, each with the end token."""
    return [[*ids, tokenizer.eos_token_id] for ids in _encode(tokenizer, answers)]


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:  # noqa: ANN401 - foreign type
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids
