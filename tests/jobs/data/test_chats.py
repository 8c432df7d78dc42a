"""What is learnt of a chat: transformers' own masks of a marked template are the judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.data.tokenizer import Chat, encode_chats, load_tokenizer, pad_of, train_tokenizer

TEXTS = [f"What is {a} + {b}? It is {a + b}.\n" for a in range(10, 30) for b in range(10, 20)]
ONE_TURN = [
    {"role": "user", "content": "What is 12 + 13?"},
    {"role": "assistant", "content": "25"},
]
TURNS = [
    {"role": "system", "content": "Be brief."},
    *ONE_TURN,
    {"role": "user", "content": "It is?"},
    {"role": "assistant", "content": "What?\n It is 25."},
    {"role": "user", "content": "25?"},
]
# Templates of three kinds; what stands between << and >> is the assistant's.
LINES = (
    "{%- for m in messages -%}[{{ m.role }}]\n{% if m.role == 'assistant' -%}"
    "<<{{- m.content }}[end]\n>>{% else -%}{{- m.content }}[end]\n{% endif %}{%- endfor -%}"
    "{%- if add_generation_prompt -%}[assistant]\n{% endif -%}"
)
TRIMMED = (
    "[begin]{%- for m in messages -%}[{{ m.role }}]{% if m.role == 'assistant' -%}"
    "<<{{- m.content | trim }}[end]>>{% else -%}{{- m.content | trim }}[end]{% endif %}"
    "{%- endfor -%}{%- if add_generation_prompt -%}[assistant]{% endif -%}"
)
INSTRUCTED = (
    "{%- if messages[0].role != 'system' -%}[system]Help.[end]{%- endif -%}"
    "{%- for m in messages -%}{% if m.role == 'assistant' %}<< {{ m.content }}[end]>>"
    "{% elif m.role == 'user' -%}[user]{{ m.content }}[/user]"
    "{% else -%}[system]{{ m.content }}[end]{% endif %}{%- endfor -%}"
)
THINKING = (
    "{%- for m in messages -%}[{{ m.role }}]{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last %}[thought]{% endif %}[end]{%- endfor -%}"
    "{%- if add_generation_prompt -%}[assistant]{% endif -%}"
)


def tokenizer_with(template: str) -> Any:
    tokenizer = train_tokenizer(TEXTS, vocab_size=320)
    tokenizer.chat_template = template
    return tokenizer


def plain(template: str) -> str:
    return template.replace("<<", "").replace(">>", "")


def marked(template: str) -> str:
    return template.replace("<<", "{% generation %}").replace(">>", "{% endgeneration %}")


def learnt(tokenizer: Any, chat: Chat) -> str:
    ((tokens, mask),) = encode_chats(tokenizer, [chat])
    text: str = tokenizer.decode([t for t, one in zip(tokens, mask, strict=True) if one])
    return text


@pytest.mark.parametrize("template", [LINES, TRIMMED, INSTRUCTED])
@pytest.mark.parametrize("chat", [ONE_TURN, TURNS, TURNS[:-1], TURNS[:1]])
def test_answers_are_found_that_a_template_does_not_mark(
    template: str, chat: list[Mapping[str, str]]
) -> None:
    tokenizer = tokenizer_with(plain(template))
    judge = tokenizer_with(marked(template))
    assert encode_chats(tokenizer, [chat, ONE_TURN]) == encode_chats(judge, [chat, ONE_TURN])
    whole = tokenizer.apply_chat_template(chat)["input_ids"]
    assert encode_chats(tokenizer, [chat])[0][0] == whole


def test_each_answer_of_several_turns_is_learnt_with_the_templates_own_end() -> None:
    assert learnt(tokenizer_with(plain(LINES)), TURNS) == "25[end]\nWhat?\n It is 25.[end]\n"
    assert learnt(tokenizer_with(plain(TRIMMED)), ONE_TURN) == "25[end]"


def test_a_prompt_is_what_stands_before_the_answer() -> None:
    for template in (LINES, TRIMMED):
        tokenizer = tokenizer_with(plain(template))
        ((tokens, mask),) = encode_chats(tokenizer, [ONE_TURN])
        prompt = tokenizer.apply_chat_template(ONE_TURN[:1], add_generation_prompt=True)
        assert tokens[: mask.index(True)] == prompt["input_ids"]


def test_a_template_that_changes_earlier_answers_is_refused_with_the_way_out() -> None:
    tokenizer = tokenizer_with(THINKING)
    assert learnt(tokenizer, ONE_TURN) == "25[thought][end]"
    with pytest.raises(ValueError, match=r"message 2 of a chat otherwise .* \{% generation %\}"):
        encode_chats(tokenizer, [TURNS])


@pytest.mark.parametrize("written", [plain, marked])
def test_of_several_templates_the_default_is_taken(
    tmp_path: Path, written: Callable[[str], str]
) -> None:
    several = tokenizer_with(THINKING)
    several.chat_template = {"default": written(LINES), "tool_use": THINKING}
    several.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer.chat_template, dict)
    assert encode_chats(tokenizer, [TURNS]) == encode_chats(tokenizer_with(marked(LINES)), [TURNS])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "the tokenizer has no chat template: put the one"),
        ({"rag": LINES, "tool_use": LINES}, r"\['rag', 'tool_use'\] is called 'default': put the"),
    ],
)
def test_a_tokenizer_without_a_template_of_its_own_is_refused_with_the_way_out(
    tmp_path: Path, template: Any, said: str
) -> None:
    tokenizer = tokenizer_with(LINES)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=said) as raised:
        encode_chats(load_tokenizer(tmp_path), [ONE_TURN])
    assert "\n" not in str(raised.value)
    (tmp_path / "chat_template.jinja").write_text(plain(LINES))
    assert learnt(load_tokenizer(tmp_path), ONE_TURN) == "25[end]\n"


def test_a_tokenizer_without_a_pad_token_fills_up_by_another() -> None:
    tokenizer = tokenizer_with(plain(LINES))
    assert pad_of(tokenizer) == tokenizer.pad_token_id
    tokenizer.pad_token = None
    assert pad_of(tokenizer) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert pad_of(tokenizer) == 0
