"""A data set of tokens: a folder of shards with a description, on a disk or in a store.

In it are:

    dataset.json             what any data set says of itself, of kind `tokens`
    tokens.json              tokenizer, type and shards of each split
    tokenizer/               a Hugging Face tokenizer with its chat template
    train-00000.bin, .idx    a shard (`shards`); one of each part of the source, and per split
    train-00000.mask.bin, .mask.idx
                             a shard of as many bytes in the same documents: 1 where the token is
                             to be learnt. Chats have it; of plain text all is learnt
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec

from jobs.data.dataset import TOKENIZER_NAME
from jobs.data.tokens.shards import Shard
from jobs.data.tokens.stored_files import asking, is_remote, mapped
from orchestrator.job import DataError

NAME = "tokens.json"
MASK = ".mask"
VERSION = 1
_AT_ONCE = 16  # files that are opened


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """What the description says of a shard; `highest` is its greatest token."""

    name: str
    documents: int
    tokens: int
    highest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What `tokens.json` says.

    Attributes:
        tokenizer: Digest of the vocabulary that tokens are numbers of.
        vocabulary: How many tokens it has.
        type: Of the tokens, in numpy's words.
        masked: Whether each shard has a mask.
        splits: The shards of each split.
        version: Of this description.
    """

    tokenizer: str
    vocabulary: int
    type: str
    masked: bool
    splits: Mapping[str, Sequence[ShardFacts]] = field(default_factory=dict)
    version: int = VERSION

    @property
    def highest(self) -> int:
        """The greatest token of all shards, -1 where there is none."""
        return max((s.highest for shards in self.splits.values() for s in shards), default=-1)

    def text(self) -> str:
        """Return it as a file has it."""
        return f"{json.dumps(asdict(self), indent=1, sort_keys=True)}\n"


@dataclass(frozen=True, slots=True)
class TokenFolder:
    """A folder of tokens that is there; `place` is a path or the address of a store."""

    place: str
    description: Description

    def shards(self, split: str) -> list[Shard]:
        """Open the shards of a split, those of the mask not.

        Raises:
            DataError: One is missing, cut short, or another one than the description says.
        """
        return self._every(split, "")

    def masks(self, split: str) -> list[Shard] | None:
        """Open the masks of a split, `None` where all is to be learnt."""
        if not self.description.masked:
            return None
        return self._every(split, MASK)

    @contextmanager
    def tokenizer(self) -> Iterator[Path]:
        """Hand out a folder of this host with the tokenizer."""
        place = f"{self.place}/{TOKENIZER_NAME}"
        if not is_remote(place):
            yield Path(place.removeprefix("file://"))
            return
        store, inside = fsspec.core.url_to_fs(place)
        with TemporaryDirectory(prefix="tokenizer-") as folder:
            names = asking(place, lambda: store.ls(inside, detail=False))
            for name in names:
                asking(place, partial(store.get_file, name, f"{folder}/{Path(name).name}"))
            yield Path(folder)

    def _every(self, split: str, kind: str) -> list[Shard]:
        facts = self.description.splits.get(split, ())
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # a store takes long for each
            return list(pool.map(partial(self._open, kind=kind), facts))

    def _open(self, facts: ShardFacts, kind: str) -> Shard:
        shard = Shard(f"{self.place}/{facts.name}{kind}")
        counts = (len(shard), shard.tokens)
        if counts != (facts.documents, facts.tokens):
            raise DataError(
                f"{shard.name} is another shard than {NAME} says: it has {counts[0]:,} documents "
                f"of {counts[1]:,} tokens, not {facts.documents:,} of {facts.tokens:,}"
            )
        return shard


def holds_tokens(folder: Path) -> bool:
    """Whether a folder of this host is a data set of tokens."""
    return (folder / NAME).is_file()


def open_folder(place: str) -> TokenFolder:
    """Open a data set of tokens, a folder of this host or of a store.

    Raises:
        DataError: It is none, or is of a version that is not read.
    """
    place = place.rstrip("/")
    content = mapped(f"{place}/{NAME}").tobytes()
    try:
        known: dict[str, Any] = json.loads(content)
        splits = {
            split: tuple(ShardFacts(**facts) for facts in shards)
            for split, shards in known.pop("splits").items()
        }
        description = Description(splits=splits, **known)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{place}/{NAME} describes no tokens: {error}") from error
    if description.version != VERSION:
        raise DataError(
            f"{place}/{NAME} is of version {description.version!r}, and {VERSION!r} is read"
        )
    return TokenFolder(place, description)


def digest_of(tokenizer: Any) -> str:  # noqa: ANN401 - foreign type
    """Return a hash of which token has which number."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()


def check_tokenizer(place: str, tokenizer: str, digest: str, owner: str) -> None:
    """Refuse a data set whose `tokenizer` has another digest than that of `owner`.

    Raises:
        DataError: It has.
    """
    if tokenizer != digest:
        raise DataError(
            f"{place} was made with another tokenizer than that of {owner}: their "
            f"vocabularies differ; prepare it again with that tokenizer"
        )


def check_vocabulary(folder: TokenFolder, rows: int) -> None:
    """Refuse tokens that a model whose embedding has `rows` rows does not know.

    Raises:
        DataError: There are some.
    """
    if folder.description.highest >= rows:
        raise DataError(
            f"{folder.place} has token {folder.description.highest:,}, and the model's vocabulary "
            f"ends at {rows - 1:,}: give the model a vocab_size of at least "
            f"{folder.description.vocabulary:,}, or prepare the data with its own tokenizer"
        )
