from __future__ import annotations

from pathlib import Path

import pytest

from jobs.data.tokenizer import encode_chats, load_tokenizer, train_tokenizer

QUESTIONS = [f"What is {a} + {b}?" for a in range(10, 40) for b in range(10, 20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(QUESTIONS, vocab_size=320, phrases=True).save_pretrained(made)
    return made


def test_any_text_comes_back_as_it_was(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)

    for text in ("What is 12 + 34?", "déjà vu\n\t 龍", "  two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_digit_is_a_token_of_its_own(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokens = [tokenizer.decode([token]) for token in tokenizer.encode("What is 12 + 345?")]

    assert [token for token in tokens if token.strip().isdigit()] == ["1", "2", "3", "4", "5"]


def test_a_fixed_wording_is_few_tokens(folder: Path) -> None:
    assert len(load_tokenizer(folder).encode("What is 12 + 34?")) <= 7


def test_a_bare_question_is_prompted_as_it_was_trained(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    chat = [{"role": "user", "content": QUESTIONS[0]}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    whole = [*chat, {"role": "assistant", "content": "20"}]
    ((tokens, learnt),) = encode_chats(tokenizer, [whole])

    assert asked == [t for t, one in zip(tokens, learnt, strict=True) if not one]
    assert tokenizer.apply_chat_template(whole)["input_ids"] == tokens
    assert tokens[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_no_more_tokens_are_made_than_asked_for(folder: Path) -> None:
    assert len(load_tokenizer(folder)) <= 320
