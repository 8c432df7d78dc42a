"""The parts of a tokenizer, each by a digest: where all are alike, so are the tokens of any text.

A few texts show that two tokenizers differ where those texts do. Their vocabularies, rules and
templates show it for all others too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.data.tokenizer import load_tokenizer

TEMPLATE = "chat template"
Digests = dict[str, str]

_RULES = ("normalizer", "pre_tokenizer", "post_processor")
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def digests(tokenizer: Any) -> Digests:  # noqa: ANN401 - foreign and untyped
    """Return the SHA-256 of each part of a tokenizer, by what it is called.

    Of a tokenizer that transformers runs in Python they are vocabulary, added tokens and template.
    """
    added = tokenizer.added_tokens_decoder
    parts: dict[str, object] = {
        "vocabulary": tokenizer.get_vocab(),
        "added tokens": {
            token: {flag: getattr(said, flag) for flag in _FLAGS} for token, said in added.items()
        },
        TEMPLATE: tokenizer.chat_template,
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        said = json.loads(backend.to_str())
        parts |= {rule.replace("_", "-"): _without_defaults(said.get(rule)) for rule in _RULES}
        # the vocabulary is told above, and how merges are written is a matter of versions
        parts["merges"] = [
            merge.split(" ") if isinstance(merge, str) else merge
            for merge in said["model"].get("merges") or ()
        ]
        rest = {n: part for n, part in said["model"].items() if n not in ("vocab", "merges")}
        parts["model"] = _without_defaults(rest)
    return {name: _digest(part) for name, part in parts.items()}


def digests_of_export(folder: Path) -> tuple[Digests, ...]:
    """Return the digests of the tokenizer in a folder, and of what is saved of it.

    transformers may write other rules than it has read, which do the same.

    Raises:
        OSError: The tokenizer can't be read.
    """
    tokenizer = load_tokenizer(folder)
    with TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        return digests(tokenizer), digests(load_tokenizer(Path(place)))


def other_parts(trained: tuple[Digests, ...], served: Digests) -> list[str]:
    """Return the parts of the tokenizer that is served that are none of those trained."""
    names = {name for known in (*trained, served) for name in known}
    return sorted(
        name for name in names if served.get(name) not in {known.get(name) for known in trained}
    )


def _without_defaults(part: object) -> object:
    """Return a part without fields that say no, which are as good as none to other versions."""
    if isinstance(part, dict):
        return {name: _without_defaults(value) for name, value in part.items() if value}
    return [_without_defaults(value) for value in part] if isinstance(part, list) else part


def _digest(part: object) -> str:
    text = json.dumps(part, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
