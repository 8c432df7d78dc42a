"""Trains small byte-level BPE tokenizers with a chat template.

Byte-level, so that any text can be encoded and decoded without loss. Digits are always tokens of
their own: a model that is to add numbers must see them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

Chat: TypeAlias = Sequence[Mapping[str, str]]  # messages: `role` and `content`
Encoded: TypeAlias = tuple[list[int], list[bool]]  # tokens, and whether each is to be learnt

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")

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


def encode_chats(tokenizer: Any, chats: Sequence[Chat]) -> list[Encoded]:  # noqa: ANN401 - foreign type
    """Return the tokens of chats in the tokenizer's chat template, and which are to be learnt.

    Those are the answers of the assistant, each with what the template ends it by; what the
    template begins it by is part of the prompt. A template may mark them (`{% generation %}`); of
    others, they are what each message of the assistant adds. Of several templates the one called
    `default` is taken.

    Raises:
        ValueError: There is no template; or it has no marks, and an answer looks otherwise once
            others follow.
    """
    if _MARKS.search(_template_of(tokenizer)):
        return [_by_marks(tokenizer, chat) for chat in chats]
    return [_by_additions(tokenizer, chat) for chat in chats]


def pad_of(tokenizer: Any) -> int:  # noqa: ANN401 - foreign type
    """Return the token that fills rows up: nothing is learnt of it, so any will do."""
    known = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in known if token is not None)


def _template_of(tokenizer: Any) -> str:  # noqa: ANN401 - foreign type
    named = tokenizer.chat_template
    if not named:
        what = "the tokenizer has no chat template"
    elif isinstance(named, dict) and "default" not in named:
        what = f"none of the tokenizer's chat templates {sorted(named)!r} is called 'default'"
    else:
        template: str = tokenizer.get_chat_template()
        return template
    raise ValueError(
        f"{what}: put the one to train with into `chat_template.jinja` of the model's folder"
    )


def _alike(text: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(text), len(other)))


def _by_marks(tokenizer: Any, chat: Chat) -> Encoded:  # noqa: ANN401 - foreign type
    encoding = tokenizer.apply_chat_template(
        list(chat), return_dict=True, return_assistant_tokens_mask=True
    )
    return encoding["input_ids"], [bool(mask) for mask in encoding["assistant_masks"]]


def _by_additions(tokenizer: Any, chat: Chat) -> Encoded:  # noqa: ANN401 - foreign type
    def text_of(messages: Chat, **options: bool) -> str:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        return text

    whole = text_of(chat)
    spans: list[tuple[int, int]] = []
    for number, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        before = text_of(chat[:number], add_generation_prompt=True)
        after = text_of(chat[: number + 1])
        if not whole.startswith(after):  # what ends a chat need not end each answer
            after = after.removesuffix(tokenizer.eos_token or "")
        start = _alike(before, after)  # not all that prompts for an answer need be before one
        said = message["content"].strip()
        if not (whole.startswith(after) and said in after[start:]):
            raise ValueError(
                f"the chat template renders message {number!r} of a chat otherwise once others "
                f"follow, or changes it: mark the answers in the template by {{% generation %}}"
            )
        spans.append((start, len(after)))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    places = encoded["offset_mapping"]
    learnt = [any(a < end and b > start for start, end in spans) for a, b in places]
    return encoded["input_ids"], learnt
