"""Chats become tokens by the model's template, which may fail in any way, and then says how."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.engines.embedded import EmbeddedEngine
from jobs.engines.model_tokenizer import Tokenizer
from tests.jobs.engines.tiny_llama import HARDWARE, save_byte_tokenizer, save_tiny_llama

USER = [{"role": "user", "content": "hi"}]
DEEP = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"


def tokenizer(folder: Path, template: str) -> Tokenizer:
    save_byte_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template)
    return Tokenizer(folder)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[0].content + 1 }}", "TypeError: can only concatenate str"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ nothing() }}", "UndefinedError: 'nothing' is undefined"),
        ("{{ raise_exception('no') }}", "TemplateError: no"),
        ("{% if %}", "TemplateSyntaxError: "),
        ("{% include 'x' %}", "TypeError: no loader"),
        ("{% for i in range(1000000) %}x{% endfor %}", "OverflowError: Range too big"),
        (DEEP, "RecursionError: "),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: "),
        (r"{{ '\ud800' }}", "UnicodeEncodeError: .* surrogates not allowed"),
    ],
)
def test_a_template_that_fails_is_told_by_its_error(
    tmp_path: Path, template: str, words: str
) -> None:
    with pytest.raises(ValueError, match=f"chat template refuses these messages: {words}"):
        tokenizer(tmp_path, template).render(USER)


def test_a_chat_has_the_tokens_that_transformers_gives_it(tmp_path: Path) -> None:
    mine = tokenizer(tmp_path, "<eos>{{ messages[0].content }}é{{ '\\x00' }}")
    theirs = mine.foreign.apply_chat_template(USER, tokenize=True, return_dict=False)
    assert mine.encode(mine.render(USER), special=False) == theirs


def test_a_chat_that_its_template_makes_too_long_for_any_context_is_not_tokenised(
    tmp_path: Path,
) -> None:
    save_tiny_llama(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ 'x' * 10000000 }}")
    engine = EmbeddedEngine(tmp_path, HARDWARE, threads=1)
    with pytest.raises(ValueError, match="10000000 characters are more than max_context=512"):
        engine.encode_chat(USER)
    engine.close()
