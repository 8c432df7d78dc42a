"""What each token of a vocabulary stands for, as bytes: part of a character too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Looks tokens up in the tokenizer of transformers. Special ones stand for their names.

    Byte-level vocabularies and those with byte fallback are read exactly; in others a token is
    what it decodes to by itself.

    Attributes:
        exact: Whether the bytes of the tokens of a text are the bytes of the text.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - foreign and untyped
        self._tokenizer = tokenizer
        self._added = {number: token.content for number, token in added(tokenizer).items()}
        self._kinds, self._replaced = _decoder_of(tokenizer)
        self._bytes: dict[int, bytes] = {}
        self.exact = bool(self._kinds & {"ByteLevel", "ByteFallback"})
        words = (*tokenizer.get_vocab(), *map(str, self._added.values()))
        self.longest = max((len(word.encode()) for word in words), default=1)

    def __getitem__(self, token: int) -> bytes:
        """Return the bytes of `token`; none for a row of the model that is no token."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._read(token)
        return known

    def _read(self, token: int) -> bytes:
        if token in self._added:
            return str(self._added[token]).encode()
        word = self._tokenizer.convert_ids_to_tokens(token)
        if word is None:
            return b""
        if "ByteLevel" in self._kinds:
            return bytes(_BYTE_OF[character] for character in word if character in _BYTE_OF)
        byte = _BYTE.fullmatch(word)
        if byte and "ByteFallback" in self._kinds:
            return bytes.fromhex(byte[1])
        if self._replaced:
            for pattern, content in self._replaced.items():
                word = word.replace(pattern, content)
            return str(word).encode()
        text: str = self._tokenizer.decode([token])
        return text.encode()


def added(tokenizer: Any) -> Mapping[int, Any]:  # noqa: ANN401 - as above
    """Return the tokens that were added to the vocabulary, special ones among them."""
    decoder: Mapping[int, Any] = tokenizer.added_tokens_decoder
    return decoder


def _decoder_of(tokenizer: Any) -> tuple[set[str], dict[str, str]]:  # noqa: ANN401 - as above
    """Return the kinds of decoders of a fast tokenizer, and the texts that they replace."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str()).get("decoder") if backend is not None else None
    steps = (decoder or {}).get("decoders") or ([decoder] if decoder else [])
    replaced = {
        step["pattern"]["String"]: step["content"]
        for step in steps
        if step["type"] == "Replace" and "String" in step["pattern"]
    }
    replaced |= {step["replacement"]: " " for step in steps if step["type"] == "Metaspace"}
    return {step["type"] for step in steps}, replaced


def _bytes_of_characters() -> dict[str, int]:
    """Return the byte for each character of GPT-2's alphabet: printable ones are themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(0x100 + place): byte for place, byte in enumerate(rest)
    }


_BYTE_OF = _bytes_of_characters()
