"""What a training refuses of its data: one clear line, and a failure of the data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from jobs.data.tokenizer import load_tokenizer
from jobs.data.tokens.stored_files import MappedFile
from jobs.data.tokens.token_folder import open_folder
from jobs.data.tokens.training_data import open_training, read_samples, rows_config
from jobs.evaluation.held_out import evaluate
from jobs.parity.questions import choose
from jobs.pretraining import pretrain
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.job import DataError
from orchestrator.worker.exception_report import describe
from tests.build import documented
from tests.jobs.data.tokens.corpora import RECIPE, prepared, texts, write_records, write_tokenizer
from tests.jobs.local_context import LocalContext


def cut_short(data: Path) -> None:
    path = data / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])


def emptied(data: Path) -> None:
    for end in (".bin", ".idx"):
        (data / f"train-00000{end}").write_bytes(b"")


def swapped(data: Path) -> None:
    for end in (".bin", ".idx"):
        shutil.copyfile(data / f"train-00001{end}", data / f"train-00000{end}")


def described_wrongly(data: Path) -> None:
    (data / "tokens.json").write_text("{}", "utf-8")


def of_later_times(data: Path) -> None:
    known = json.loads((data / "tokens.json").read_text("utf-8"))
    (data / "tokens.json").write_text(json.dumps({**known, "version": 2}), "utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            cut_short,
            r"train-00000.bin is cut short: it has [\d,]+ bytes, and its index says [\d,]+",
        ),
        (emptied, r"train-00000.idx is empty: the shard was never finished"),
        (swapped, r"train-00000 is another shard than tokens.json says: it has \d+ documents"),
        (described_wrongly, r"tokens.json describes no tokens: 'splits'"),
        (of_later_times, r"tokens.json is of version 2, and 1 is read"),
    ],
)
def test_damaged_tokens_are_a_failure_of_the_data(
    tmp_path: Path, tokens: Path, damage: Callable[[Path], None], message: str
) -> None:
    data = Path(shutil.copytree(tokens, tmp_path / "data"))
    damage(data)
    assert_refused(LocalContext(folder=tmp_path, inputs={"data": data}), message)


def test_a_vocabulary_that_is_larger_than_the_models_is_refused(
    tmp_path: Path, tokens: Path
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": tokens})
    model = {**RECIPE["model"], "vocab_size": 300}
    message = (
        r"has token 31\d, and the model's vocabulary ends at 299: give the model a vocab_size"
    )
    assert_refused(ctx, message, model=model)


def test_tokens_of_another_tokenizer_are_refused(
    tmp_path: Path, tokens: Path, corpus: Path
) -> None:
    other = write_tokenizer(tmp_path / "other", size=300)
    inputs = {"data": tokens, "model": other}
    message = r"was made with another tokenizer than that of the input 'model': their vocabular"
    assert_refused(LocalContext(folder=tmp_path, inputs=inputs), message)
    inputs = {"ours": tokens, "theirs": prepared(tmp_path / "theirs", other, corpus)}
    ctx = LocalContext(folder=tmp_path, inputs=inputs)
    rows = {**RECIPE["rows"], "mixture": {"ours": 1, "theirs": 2}}
    assert_refused(ctx, r"theirs/output was made with another tokenizer than that of ", rows=rows)


def test_tokens_that_are_less_than_a_row_are_refused(tmp_path: Path, tokens: Path) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": tokens})
    message = r"has no row to train on: its training split is shorter than rows.sequence=100000"
    assert_refused(ctx, message, rows={"sequence": 100_000})


def test_rows_of_another_tokenizer_than_the_models_are_refused(tmp_path: Path, sums: Path) -> None:
    inputs = {"data": sums, "model": write_tokenizer(tmp_path / "other", size=300)}
    message = r"output was made with another tokenizer than that of the input 'model'"
    assert_refused(LocalContext(folder=tmp_path, inputs=inputs), message)


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("tokens", 3, 4000, "train.safetensors has token 4,000 in row 3, and the model's vocab"),
        ("tokens", 0, -1, "train.safetensors has token -1 in row 0, and the model's vocabulary"),
        ("labels", 5, 4000, "train.safetensors has label 4,000 in row 5, and the model's vocab"),
    ],
)
def test_rows_with_what_the_vocabulary_lacks_are_refused(
    tmp_path: Path, sums: Path, name: str, row: int, value: int, message: str
) -> None:
    data = Path(shutil.copytree(sums, tmp_path / "data"))
    arrays = load_file(data / "train.safetensors")
    arrays[name][row, 1] = value
    save_file(arrays, data / "train.safetensors")
    assert_refused(LocalContext(folder=tmp_path, inputs={"data": data}), message)


def test_rows_that_are_longer_than_the_model_takes_are_refused(tmp_path: Path, sums: Path) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    message = r"train.safetensors has rows of \d+ tokens and one more, and the model takes 4 \(max"
    model = {**RECIPE["model"], "max_position_embeddings": 4}
    assert_refused(ctx, message, model=model)


def assert_refused(ctx: LocalContext, message: str, **changes: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pretrain(ctx, **{**RECIPE, **changes})
    report = describe(caught.value, documented())
    assert (report.kind, report.certain, report.detail) == (FailureKind.DATA, True, "")
    assert report.line == str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"sequense": 8}, "rows has no field 'sequense'; did you mean 'sequence'?"),
        ({"sequence": 0}, "rows.sequence=0: give a whole number, at least 1"),
        ({"sequence": "4k"}, "rows.sequence='4k': give a whole number, at least 1"),
        ({"prefetch": 1.5}, "rows.prefetch=1.5: give a whole number, at least 0"),
        ({"mixture": ["web"]}, r"rows.mixture=\['web'\]: give weights by input or by folder"),
        ({"mixture": {"data": "half"}}, "rows.mixture.data='half': give a number above 0"),
        ("4k", "rows='4k': give its fields"),
        ({"packing": "tight"}, r"rows.packing='tight' is none of \('auto', 'cut', 'whole'\)"),
        ({"documents": "near"}, r"rows.documents='near' is none of \('apart', 'joined'\)"),
        (
            {"mixture": {"web": 1}},
            r"to be 'web', and the stage has no such input; it has \['data'\]",
        ),
        ({"sequence": 4096}, "more than the model takes: max_position_embeddings=2048"),
    ],
)
def test_rows_that_can_not_be_made_are_refused(
    tmp_path: Path, tokenizer: Path, rows: dict[str, Any], message: str
) -> None:
    source = write_records(tmp_path / "a.jsonl", [{"text": " ".join(texts(300))}])
    data = prepared(tmp_path / "data", tokenizer, source, validation=0.0)
    with pytest.raises(ValueError, match=message):
        pretrain(LocalContext(folder=tmp_path, inputs={"data": data}), **{**RECIPE, "rows": rows})


def test_a_mixture_has_its_weights_and_names_inputs_or_folders(
    tmp_path: Path, tokens: Path, tokenizer: Path
) -> None:
    source = write_records(tmp_path / "b.jsonl", [{"text": t} for t in texts(400, 5000)])
    other = prepared(tmp_path / "other", tokenizer, source)
    ctx = LocalContext(folder=tmp_path, inputs={"web": tokens})
    config = rows_config({"sequence": 32, "mixture": {"web": 0.75, str(other): 0.25}})
    data = open_training(ctx, config, 8, load_tokenizer(tokenizer))
    alone = {
        name: open_training(
            LocalContext(folder=tmp_path, inputs={"data": folder}),
            rows_config({"sequence": 32}), 8, load_tokenizer(tokenizer),
        ).rows
        for name, folder in (("web", tokens), ("other", other))
    }  # fmt: skip
    assert len(data.rows) == len(alone["web"]) + len(alone["other"])
    taken = data.order.take(0, 400)
    web = taken < len(alone["web"])
    assert int(web.sum()) == 300
    batch = data.rows.read(taken)
    assert batch.tokens[web].equal(alone["web"].read(taken[web]).tokens)
    theirs = alone["other"].read(taken[~web] - len(alone["web"]))
    assert batch.tokens[~web].equal(theirs.tokens)
    assert batch.positions is not None
    assert batch.positions[~web].equal(theirs.positions)
    assert data.rows.counts(taken, 0)[1] == int((batch.labels[:, 1:] != -100).sum())
    assert len(data.validation) == 8


def test_shards_are_mapped_and_not_read(tokens: Path) -> None:
    (shard, *_) = open_folder(str(tokens)).shards("train")
    assert isinstance(shard.file, MappedFile)
    content = shard.file.content
    assert content.base is not None
    assert not content.flags.owndata


def test_a_model_of_tokens_is_evaluated_and_asked(tmp_path: Path, tokens: Path) -> None:
    ctx = LocalContext(folder=tmp_path / "train", inputs={"data": tokens})
    pretrain(ctx, **{**RECIPE, "steps": 2})
    inputs = {"data": tokens, "model": ctx.output}
    measured = LocalContext(folder=tmp_path / "measure", inputs=inputs)
    values = evaluate(measured, split="validation", examples=8, rows=RECIPE["rows"])
    assert values["eval/loss"] == pytest.approx(ctx.series("validation/loss")[-1], rel=1e-5)
    samples = read_samples(tokens, "validation")
    folder = open_folder(str(tokens))
    assert len(samples) == sum(len(shard) for shard in folder.shards("validation"))
    questions = choose(tokens, "validation", 4, most=5, tasks=False)
    assert len(questions) == 4
    assert all(0 < len(question.prompt) <= 16 for question in questions)
