# ruff: noqa: RUF001 - DeepSeek has bars of its own
"""What is learnt of a chat, against what TRL learns of it by its own templates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.data.tokenizer import encode_chats
from tests.jobs.data.chat_formats import CHATS, RECORD, REFUSED, TEMPLATES, pieces, tokenizer_of

CASES = json.loads(RECORD.read_text("utf-8"))["cases"]
# TRL learns this too, though it already prompts for the answer.
PROMPTS = {"deepseekv3": "<｜Assistant｜>"}


def test_each_format_is_judged() -> None:
    wanted = {(name, chat) for name in TEMPLATES for chat in CHATS} - REFUSED
    assert {(case["format"], case["chat"]) for case in CASES} == wanted


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['format']}-{case['chat']}")
def test_what_is_learnt_is_what_trl_learns(case: dict[str, Any]) -> None:
    tokenizer = tokenizer_of(TEMPLATES[case["format"]])
    ((tokens, learnt),) = encode_chats(tokenizer, [CHATS[case["chat"]]])
    assert tokenizer.decode(tokens) == case["text"]
    prompt = PROMPTS.get(case["format"], "")
    assert [prompt + text for text in pieces(tokenizer, tokens, learnt)] == case["learnt"]
