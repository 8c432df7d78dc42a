"""Makes a data set of tokens out of documents or chats, by one worker or a gang of them.

Each part of the source becomes a shard of each split, whoever makes it: the same source, seed and
size of parts give the same files, whatever the number of workers. Worker k takes parts k, k + n,
k + 2n, ...; what others than the first have made is brought to it over the group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from jobs.data.dataset import TOKENIZER_NAME, Facts, write_facts
from jobs.data.splits import SPLITS, TRAIN, split_of
from jobs.data.tokenizer import Encoded, encode_chats, load_tokenizer, pad_of
from jobs.data.tokens.shards import BIN, IDX, ShardWriter, type_for
from jobs.data.tokens.sources import SourcePart, documents_of, parts_of
from jobs.data.tokens.token_folder import MASK, NAME, Description, ShardFacts, digest_of
from jobs.training.process_group import ProcessGroup
from orchestrator.job import DataError, JobContext, Metrics

_TOGETHER = 256  # documents that are encoded at once
_MB = 1_000_000
_MASK_TYPE = np.dtype("u1")

Written = list[tuple[str, ShardFacts]]  # shards, each with its split


def prepare(  # noqa: PLR0913 - the parameters of a job are its configuration
    ctx: JobContext,
    *,
    source: str | list[str] = "",
    tokenizer: str = "",
    text: str = "text",
    messages: str = "",
    lines: bool = False,
    split: str = TRAIN,
    validation: float = 0.01,
    test: float = 0.01,
    part_mb: float = 256.0,
) -> Metrics:
    """Read the source, split it by content, and write tokens.

    Args:
        ctx: The context.
        source: Files, folders or patterns (`/shared/web`, `s3://bucket/web/*.jsonl.gz`); the input
            `source` where left out.
        tokenizer: A folder with the tokenizer; that of the input `model` where left out.
        text: Name of the field that a document stands in.
        messages: Name of the field that a chat stands in: then chats are read, in the tokenizer's
            template, and the answers of the assistant alone are to be learnt.
        lines: Whether each line of a text file is a document; else the file is one.
        split: Which one is read of a folder whose files name splits, as those of the Hugging Face
            hub do; `all` is every file. A split of the result is another thing (`validation`).
        validation: Share of the documents held out for validation.
        test: Share of the documents held out for the test.
        part_mb: Size of the parts that a source is read in, MB; each becomes a shard.
    """
    group = ProcessGroup(ctx)
    encoder = _Encoder(_tokenizer(ctx, tokenizer), text=text, messages=messages)
    size = max(1, round(part_mb * _MB))
    listed = partial(parts_of, size=size, lines=lines, split=split, tell=ctx.log)
    parts = _listed(ctx, group, source, listed)
    shares = {"validation": validation, "test": test}
    split_of("", seed=ctx.seed, **shares)  # refuses shares that leave nothing
    with ExitStack() as stack:
        folder = ctx.output
        if ctx.rank:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="tokens-")))
        stack.enter_context(ctx.busy("tokenizing"))
        written: Written = []
        for done, (number, part) in enumerate(_mine(group, parts), start=1):
            written += _shards(encoder, part, folder, number, ctx.seed, shares)
            ctx.progress(min(done * group.size, len(parts)), len(parts))
        every = _gathered(ctx, group, folder, written, masked=encoder.masked)
    if not any(split == TRAIN for split, _ in every):
        raise DataError(f"{source or ctx.inputs['source']} has no document to train on")
    if ctx.rank == 0:
        facts = {"source": source, "split": split, "seed": ctx.seed, "parts": len(parts)}
        _describe(ctx.output, encoder, every, {**facts, **shares})
    return _figures(ctx, every)


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Turns records into tokens, and whether each is to be learnt."""

    tokenizer: Any
    text: str
    messages: str

    @property
    def masked(self) -> bool:
        """Whether not all is to be learnt."""
        return bool(self.messages)

    @property
    def column(self) -> str:
        """Name of the field that is read."""
        return self.messages or self.text

    def content(self, record: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - a text or a chat
        """Return the document or the chat of a record."""
        if record.get(self.column) is None:
            raise DataError(f"{path}: a record has no {self.column!r}, but {sorted(record)!r}")
        content = record[self.column]
        if isinstance(content, list if self.masked else str):
            for message in content if self.masked else ():
                self._check(message, path)
            return content
        wanted = "list of messages" if self.masked else "text"
        raise DataError(f"{path}: {self.column!r} of a record is no {wanted}: {content!r:.80}")

    def _check(self, message: Any, path: str) -> None:  # noqa: ANN401 - what a file has
        parts = message if isinstance(message, dict) else {}
        if not all(isinstance(parts.get(part), str) for part in ("role", "content")):
            raise DataError(
                f"{path}: a message of {self.messages!r} has no role and content: {message!r:.80}"
            )

    def key(self, content: Any) -> str:  # noqa: ANN401 - as above
        """Return what decides on the split: the words, whatever their case and spacing."""
        words = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
        return " ".join(words.lower().split())

    def encode(self, contents: Sequence[Any]) -> list[Encoded]:
        """Return the tokens of documents, each with its end; or of chats."""
        if self.masked:
            return encode_chats(self.tokenizer, contents)
        end = self.tokenizer.eos_token_id
        rows = self.tokenizer(list(contents), add_special_tokens=False)["input_ids"]
        return [([*tokens, end], []) for tokens in rows]


def _tokenizer(ctx: JobContext, folder: str) -> Any:  # noqa: ANN401 - foreign type
    if not folder and "model" not in ctx.inputs:
        raise ValueError("whose tokenizer? give `tokenizer`, a folder, or an input `model`")
    tokenizer = load_tokenizer(Path(folder) if folder else ctx.inputs["model"])
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no eos_token, which is to end each document")
    return tokenizer


def _listed(
    ctx: JobContext,
    group: ProcessGroup,
    source: str | list[str],
    listed: Callable[[list[str]], list[SourcePart]],
) -> list[SourcePart]:
    """Return the parts of the source as the first worker sees them."""
    text = ""
    if ctx.rank == 0:
        sources = [source] if isinstance(source, str) else list(source)
        if sources == [""]:
            if "source" not in ctx.inputs:
                raise ValueError("what is to be read? give `source`, or an input `source`")
            sources = [str(ctx.inputs["source"])]
        text = json.dumps([asdict(part) for part in listed(sources)])
    parts = [SourcePart(**facts) for facts in json.loads(group.gather(text)[0])]
    ctx.log(f"{len(parts):,} parts of {len({part.path for part in parts}):,} files")
    return parts


def _mine(group: ProcessGroup, parts: Sequence[SourcePart]) -> Iterator[tuple[int, SourcePart]]:
    return islice(enumerate(parts), group.rank, None, group.size)


def _shards(
    encoder: _Encoder,
    part: SourcePart,
    folder: Path,
    number: int,
    seed: int,
    shares: Mapping[str, float],
) -> Written:
    """Write the shards of a part; a split that gets no document gets none."""
    type_ = type_for(len(encoder.tokenizer))
    with ExitStack() as stack:
        writers: dict[str, _Writers] = {}
        for contents in _batches(encoder, part):
            for content, encoded in zip(contents, encoder.encode(contents), strict=True):
                split = split_of(encoder.key(content), seed=seed, **shares)
                if split not in writers:
                    name = f"{split}-{number:05}"
                    writers[split] = stack.enter_context(
                        _writers(folder / name, type_, masked=encoder.masked)
                    )
                writers[split].add(encoded)
    return [(split, writer.facts) for split, writer in writers.items()]


def _batches(encoder: _Encoder, part: SourcePart) -> Iterator[list[Any]]:
    """Yield what is to be encoded together, without what is empty."""
    records = documents_of(part, encoder.column)
    contents = (content for r in records if (content := encoder.content(r, part.path)))
    while batch := list(islice(contents, _TOGETHER)):
        yield batch


@dataclass(frozen=True, slots=True)
class _Writers:
    """Writes a shard, and its mask where it has one."""

    tokens: ShardWriter
    mask: ShardWriter | None

    def add(self, encoded: Encoded) -> None:
        """Write a document."""
        tokens, learnt = encoded
        self.tokens.add(tokens)
        if self.mask is not None:
            self.mask.add(np.asarray(learnt, dtype=np.int64))

    @property
    def facts(self) -> ShardFacts:
        """What has been written."""
        lengths = self.tokens.lengths
        return ShardFacts(
            name=self.tokens.prefix.name,
            documents=len(lengths),
            tokens=sum(lengths),
            highest=self.tokens.highest,
        )


@contextmanager
def _writers(prefix: Path, type_: np.dtype[Any], *, masked: bool) -> Iterator[_Writers]:
    with ExitStack() as stack:
        tokens = stack.enter_context(ShardWriter(prefix, type_))
        mask = ShardWriter(Path(f"{prefix}{MASK}"), _MASK_TYPE) if masked else None
        yield _Writers(tokens, stack.enter_context(mask) if mask else None)


def _gathered(
    ctx: JobContext, group: ProcessGroup, folder: Path, written: Written, *, masked: bool
) -> Written:
    """Bring all shards into the first worker's `output`; return what all have written."""
    text = json.dumps([(split, asdict(facts)) for split, facts in written])
    every: Written = []
    ends = [kind + end for kind in (("", MASK) if masked else ("",)) for end in (BIN, IDX)]
    for rank, known in enumerate(group.gather(text)):
        shards = [(split, ShardFacts(**facts)) for split, facts in json.loads(known)]
        every += shards
        for _, facts in shards if rank else ():
            for end in ends:
                name = f"{facts.name}{end}"
                group.bring(rank, folder / name, ctx.output / name)
    return sorted(every, key=lambda shard: shard[1].name)


def _describe(
    folder: Path, encoder: _Encoder, every: Written, parameters: Mapping[str, Any]
) -> None:
    tokenizer = encoder.tokenizer
    tokenizer.save_pretrained(folder / TOKENIZER_NAME)
    description = Description(
        tokenizer=digest_of(tokenizer),
        vocabulary=len(tokenizer),
        type=type_for(len(tokenizer)).name,
        masked=encoder.masked,
        splits={name: tuple(f for split, f in every if split == name) for name in SPLITS},
    )
    (folder / NAME).write_text(description.text(), "utf-8")
    write_facts(folder, Facts(kind="tokens", pad=pad_of(tokenizer), parameters=parameters))


def _figures(ctx: JobContext, every: Written) -> Metrics:
    values: dict[str, float] = {}
    for name in SPLITS:
        shards = [facts for split, facts in every if split == name]
        values[f"data/{name}_documents"] = float(sum(facts.documents for facts in shards))
        values[f"data/{name}_tokens"] = float(sum(facts.tokens for facts in shards))
    ctx.log(", ".join(f"{name.removeprefix('data/')}: {n:,.0f}" for name, n in values.items()))
    return values
