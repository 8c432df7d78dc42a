# ruff: noqa: RUF001 - DeepSeek has bars of its own
"""Chat formats of well-known models in templates without marks, and what TRL learns of a chat.

By hand, with `trl==1.16.0` beside what the tests need:
`python -m tests.jobs.data.chat_formats` writes `trl_masks.json` anew, from TRL's own templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.data.tokenizer import Chat, train_tokenizer

RECORD = Path(__file__).with_name("trl_masks.json")
BOS = "<bos>"

TURNS: Chat = [
    {"role": "user", "content": "What is 12 + 13?"},
    {"role": "assistant", "content": "25"},
    {"role": "user", "content": "It is?"},
    {"role": "assistant", "content": "What?\n It is 25."},
]
CHATS: Mapping[str, Chat] = {
    "one": TURNS[:2],
    "turns": TURNS,
    "system": [{"role": "system", "content": "Be brief."}, *TURNS],
}
# By the name that TRL has for them.
TEMPLATES = {
    "qwen3_instruct_2507": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role "
        "+ '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' "
        "+ ('model' if m.role == 'assistant' else m.role) + '\n' + m.content "
        "+ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "phi3": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
    ),
    "cohere": (
        "{{ bos_token }}{% set names = {'user': 'USER', 'assistant': 'CHATBOT', "
        "'system': 'SYSTEM'} %}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|><|' "
        "+ names[m.role] + '_TOKEN|>' + m.content + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
    ),
    "deepseekv3": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' "
        "+ m.content }}{% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' + m.content "
        "+ '<｜end▁of▁sentence｜>' }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
    ),
}
REFUSED = {("gemma", "system")}  # by the template itself


def tokenizer_of(template: str) -> Any:
    """Return a tokenizer whose tokens are bytes, so that every boundary is one of tokens."""
    tokenizer = train_tokenizer(["a"], vocab_size=10)
    tokenizer.add_special_tokens({"bos_token": BOS})
    tokenizer.chat_template = template
    return tokenizer


def pieces(tokenizer: Any, tokens: list[int], learnt: list[Any]) -> list[str]:
    """Return the texts that are learnt, each without a break."""
    runs: list[list[int]] = [[]]
    for token, one in zip(tokens, learnt, strict=True):
        if one:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


def main() -> None:
    """Record what TRL's templates for training render and mark."""
    import transformers
    import trl

    cases = []
    for name in TEMPLATES:
        path = Path(trl.__file__).parent / "chat_templates" / f"{name}_training.jinja"
        tokenizer = tokenizer_of(path.read_text("utf-8"))
        for label, chat in CHATS.items():
            if (name, label) in REFUSED:
                continue
            found = tokenizer.apply_chat_template(
                chat, return_dict=True, return_assistant_tokens_mask=True
            )
            ids = found["input_ids"]
            learnt = pieces(tokenizer, ids, found["assistant_masks"])
            case = {"format": name, "chat": label, "text": tokenizer.decode(ids)}
            cases.append({**case, "learnt": learnt})
    record = {
        "source": f"TRL {trl.__version__}, chat_templates/NAME_training.jinja, masked by "
        f"transformers {transformers.__version__} (return_assistant_tokens_mask)",
        "cases": cases,
    }
    RECORD.write_text(f"{json.dumps(record, indent=1, ensure_ascii=False)}\n", "utf-8")


if __name__ == "__main__":
    main()
