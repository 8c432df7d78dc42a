"""Opens what a training reads: a data set of rows, or one or several of tokens.

A mixture names inputs of the stage, or folders that lie elsewhere (`s3://bucket/web`), which are
read in parts where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch

from jobs.data.dataset import (
    IGNORE,
    TOKENIZER_NAME,
    Rows,
    RowSource,
    file_of,
    read_facts,
    read_rows,
    rows_of,
)
from jobs.data.splits import TRAIN, VALIDATION
from jobs.data.tokenizer import Encoded, load_tokenizer, pad_of
from jobs.data.tokens.joined_rows import ChosenRows, JoinedRows
from jobs.data.tokens.packing import CUT, WHOLE, TokenRows, check_masks
from jobs.data.tokens.prefetch import PrefetchedRows
from jobs.data.tokens.stored_files import read_spans
from jobs.data.tokens.token_folder import (
    TokenFolder,
    check_tokenizer,
    check_vocabulary,
    digest_of,
    holds_tokens,
    open_folder,
)
from jobs.training.order import MixedOrder, Order, RowOrder
from orchestrator.job import DataError, JobContext

APART, JOINED = "apart", "joined"
_SAMPLES, _LONGEST_SAMPLE = 4096, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsConfig:
    """How rows are made of tokens; data sets of rows have theirs already.

    Attributes:
        sequence: Tokens that the model takes at once.
        packing: `cut`, `whole`, or `auto`: whole where the data are chats.
        documents: `apart`: those of a row do not see each other; `joined`: they do.
        mixture: Weights of data sets, by input or by address; the input `data` alone where empty.
        prefetch: Batches that are read beforehand.
    """

    sequence: int = 1024
    packing: str = "auto"
    documents: str = APART
    mixture: Mapping[str, float] = field(default_factory=dict)
    prefetch: int = 2

    def __post_init__(self) -> None:
        """Refuse what can't be. Raises `ValueError`."""
        for name, least in (("sequence", 1), ("prefetch", 0)):
            _check_count(f"rows.{name}", getattr(self, name), least)
        _check_mixture(self.mixture)
        for name, known in (("packing", ("auto", CUT, WHOLE)), ("documents", (APART, JOINED))):
            if getattr(self, name) not in known:
                raise ValueError(f"rows.{name}={getattr(self, name)!r} is none of {known!r}")


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number, at least {least!r}")


def _check_mixture(mixture: object) -> None:
    if not isinstance(mixture, Mapping):
        weights = "give weights by input or by folder, as {web: 0.7, code: 0.3}"
        raise ValueError(f"rows.mixture={mixture!r}: {weights}")  # noqa: TRY004 - of a config
    for name, weight in mixture.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
            raise ValueError(f"rows.mixture.{name}={weight!r}: give a number above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a training reads.

    Attributes:
        rows: Those to train on.
        validation: Those to validate on; there may be none.
        order: Which rows a position takes.
        pad: The token that fills rows up.
        apart: Whether documents of a row are to be kept apart.
        ahead: Batches that are read beforehand.
        folders: The data sets of tokens.
        files: Those of a data set of rows, with what they hold.
    """

    rows: RowSource
    validation: RowSource
    order: RowOrder
    pad: int
    apart: bool = False
    ahead: int = 0
    folders: Sequence[TokenFolder] = ()
    files: Mapping[str, Rows] = field(default_factory=dict)

    def check_vocabulary(self, rows: int) -> None:
        """Refuse tokens that a model whose embedding has `rows` rows does not know.

        Raises:
            DataError: There are some.
        """
        for folder in self.folders:
            check_vocabulary(folder, rows)
        for file, tokens in self.files.items():
            _check_tokens(file, tokens, rows)

    def check_width(self, longest: int) -> None:
        """Refuse rows of a data set of rows that are longer than a model takes.

        Raises:
            DataError: They are.
        """
        for file, held in self.files.items():
            if len(held) and held.width - 1 > longest:
                raise DataError(
                    f"{file} has rows of {held.width - 1:,} tokens and one more, and the model "
                    f"takes {longest:,} (max_position_embeddings): prepare shorter rows, or give "
                    f"the model more"
                )


def rows_config(values: Mapping[str, object]) -> RowsConfig:
    """Return the parameter `rows` of a job. Raises `ValueError` on what is unknown."""
    if not isinstance(values, Mapping):
        raise ValueError(f"rows={values!r}: give its fields, as {{sequence: 4096}}")  # noqa: TRY004 - of a config
    known = [entry.name for entry in fields(RowsConfig)]
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise ValueError(f"rows has no field {name!r}{hint}")
    return RowsConfig(**values)  # type: ignore[arg-type]


@contextmanager
def tokenizer_folder(ctx: JobContext, config: RowsConfig) -> Iterator[Path]:
    """Hand out a folder with the tokenizer of the data."""
    place = next(iter(_places(ctx, config)))
    if not config.mixture and not holds_tokens(Path(place)):
        yield Path(place, TOKENIZER_NAME)
        return
    with open_folder(place).tokenizer() as folder:
        yield folder


def open_training(
    ctx: JobContext, config: RowsConfig, validation_rows: int, tokenizer: object
) -> TrainingData:
    """Open the rows to train on, and the first `validation_rows` of the validation.

    Args:
        ctx: The context.
        config: How rows are made.
        validation_rows: Most rows of a validation.
        tokenizer: That of the data.

    Raises:
        DataError: Something of the data is damaged, empty, or of another tokenizer.
        ValueError: The configuration does not fit the data.
    """
    places = _places(ctx, config)
    if not config.mixture and not holds_tokens(Path(next(iter(places)))):
        return _of_rows(ctx, validation_rows, tokenizer)
    folders = [open_folder(place) for place in places]
    _check_tokenizers(ctx, folders)
    pad = pad_of(tokenizer)
    weights, sources = list(config.mixture.values()), []
    for folder in folders:
        rows = _rows(folder, TRAIN, config, pad)
        if not len(rows):
            raise DataError(
                f"{folder.place} has no row to train on: its training split is shorter than "
                f"rows.sequence={config.sequence!r} and one more"
            )
        sources.append(rows)
    held = [_rows(folder, VALIDATION, config, pad) for folder in folders]
    held_out = [(rows, w) for rows, w in zip(held, weights or [1.0], strict=True) if len(rows)]
    return TrainingData(
        rows=PrefetchedRows(ctx, _joined(sources)),
        validation=PrefetchedRows(ctx, _validation(held_out, validation_rows)),
        order=_order(sources, weights, ctx.seed),
        pad=pad,
        apart=config.documents == APART,
        ahead=config.prefetch,
        folders=folders,
    )


def open_rows(folder: Path, split: str, config: RowsConfig) -> RowSource:
    """Open the rows of a split of a data set on this host, of whichever kind."""
    if not holds_tokens(folder):
        return read_rows(folder, split)
    return _rows(open_folder(str(folder)), split, config, read_facts(folder).pad)


def read_samples(folder: Path, split: str) -> Rows:
    """Read rows of a split of a data set on this host, one for each sample or document.

    Of tokens these are the first 4,096 documents, and of each the first 1,024 tokens.
    """
    if not holds_tokens(folder):
        return read_rows(folder, split)
    tokens = open_folder(str(folder))
    shards, masks = tokens.shards(split), tokens.masks(split)
    samples: list[Encoded] = []
    for number, shard in enumerate(shards):
        begins = shard.starts[: _SAMPLES - len(samples)].tolist()
        ends = np.append(shard.starts, shard.tokens)[1 : len(begins) + 1].tolist()
        edges = [(a, min(b, a + _LONGEST_SAMPLE)) for a, b in zip(begins, ends, strict=True)]
        contents = read_spans([shard.span(*edge) for edge in edges])
        learnt = read_spans([masks[number].span(*edge) for edge in edges]) if masks else contents
        for content, mask in zip(contents, learnt, strict=True):
            ids = content.view(shard.type).tolist()
            samples.append((ids, (mask != 0).tolist() if masks else [True] * len(ids)))
    return rows_of(samples, pad=read_facts(folder).pad)


def _places(ctx: JobContext, config: RowsConfig) -> list[str]:
    """Return where the data sets lie: inputs by their names, folders as they are."""
    names = [*config.mixture] or ["data"]
    for name in names:
        if name not in ctx.inputs and "/" not in name:
            raise ValueError(
                f"the data are to be {name!r}, and the stage has no such input; "
                f"it has {sorted(ctx.inputs)!r}"
            )
    return [str(ctx.inputs.get(name, name)) for name in names]


def _of_rows(ctx: JobContext, validation_rows: int, tokenizer: object) -> TrainingData:
    data = ctx.inputs["data"]
    rows, held = read_rows(data, TRAIN), read_rows(data, VALIDATION)
    _check_model(ctx, str(data), digest_of(tokenizer))
    return TrainingData(
        rows=rows,
        validation=Rows(held.tokens[:validation_rows], held.labels[:validation_rows]),
        order=Order(len(rows), seed=ctx.seed),
        pad=read_facts(data).pad,
        files={str(file_of(data, TRAIN)): rows, str(file_of(data, VALIDATION)): held},
    )


def _check_tokens(file: str, rows: Rows, vocabulary: int) -> None:
    """Refuse rows with a token or label that a model does not know. Raises `DataError`."""
    labels = rows.labels.where(rows.labels != IGNORE, 0)
    for kind, values in (("token", rows.tokens), ("label", labels)):
        if values.numel() and (int(values.min()) < 0 or int(values.max()) >= vocabulary):
            row, at = ((values < 0) | (values >= vocabulary)).nonzero()[0].tolist()
            raise DataError(
                f"{file} has {kind} {int(values[row, at]):,} in row {row:,}, and the model's "
                f"vocabulary ends at {vocabulary - 1:,}: give the model a larger vocab_size, or "
                f"prepare the data with its own tokenizer"
            )


def _rows(folder: TokenFolder, split: str, config: RowsConfig, pad: int) -> TokenRows:
    shards, masks = folder.shards(split), folder.masks(split)
    check_masks(shards, masks)
    packing = WHOLE if folder.description.masked else CUT
    return TokenRows(
        shards,
        masks,
        sequence=config.sequence,
        packing=packing if config.packing == "auto" else config.packing,
        apart=config.documents == APART,
        pad=pad,
    )


def _joined(sources: Sequence[RowSource]) -> RowSource:
    return JoinedRows(sources) if len(sources) > 1 else sources[0]


def _order(sources: Sequence[RowSource], weights: Sequence[float], seed: int) -> RowOrder:
    if len(sources) == 1:
        return Order(len(sources[0]), seed=seed)
    return MixedOrder([len(rows) for rows in sources], weights, seed=seed)


def _validation(held_out: Sequence[tuple[RowSource, float]], most: int) -> RowSource:
    """Return rows that are the same in every validation, of each source by its weight."""
    held, weights = [rows for rows, _ in held_out], [weight for _, weight in held_out]
    if not held:
        nothing = torch.zeros((0, 2), dtype=torch.int32)
        return Rows(nothing, nothing)
    count = min(most, sum(len(rows) for rows in held))
    if len(held) == 1:
        return ChosenRows(held[0], torch.arange(count))
    return ChosenRows(_joined(held), _order(held, weights, 0).take(0, count))


def _check_tokenizers(ctx: JobContext, folders: Sequence[TokenFolder]) -> None:
    """Refuse data sets of several tokenizers, or of another one than the input `model` has."""
    first = folders[0].description.tokenizer
    for folder in folders[1:]:
        check_tokenizer(folder.place, folder.description.tokenizer, first, owner=folders[0].place)
    _check_model(ctx, folders[0].place, first)


def _check_model(ctx: JobContext, place: str, tokenizer: str) -> None:
    """Refuse data of another tokenizer than the input `model` has. Raises `DataError`."""
    model = ctx.inputs.get("model")
    if model is not None and any(model.glob("tokenizer*")):
        own = digest_of(load_tokenizer(model))
        check_tokenizer(place, tokenizer, own, owner="the input 'model'")
