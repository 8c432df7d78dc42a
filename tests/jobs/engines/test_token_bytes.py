"""The bytes of tokens, against what the tokenizer itself decodes."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from jobs.engines.token_bytes import TokenBytes
from tests.jobs.engines.tiny_llama import EOS, save_byte_tokenizer


def test_bytes_of_a_byte_level_text_are_its_own(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(save_byte_tokenizer(tmp_path))
    tokens = TokenBytes(tokenizer)
    text = "né 日本 \U0001f600\n"
    assert b"".join(tokens[token] for token in tokenizer(text)["input_ids"]) == text.encode()
    assert tokens[EOS] == b"<eos>"
    assert tokens[9999] == b""
    assert tokens.longest == len("<eos>")


def test_bytes_with_fallback_and_blanks_are_read_as_such() -> None:
    words = {"<unk>": 0, "<0xE2>": 1, "▁the": 2}
    inner = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>", byte_fallback=True))  # noqa: S106 - a word
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokens = TokenBytes(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert [tokens[1], tokens[2]] == [b"\xe2", b" the"]
