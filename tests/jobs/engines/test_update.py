from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jobs.engines.embedded import EmbeddedEngine
from jobs.engines.fast_forward import FastForward
from orchestrator.engine import Piece, Sampling
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama

PROMPTS = [f"{number} + {number} =" * number for number in range(1, 9)]
GREEDY = Sampling(max_tokens=16, temperature=0, logprobs=1)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("new"), seed=1)


@pytest.fixture
def engine(old: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(old, HARDWARE, version="v1", threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def fresh(new: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(new, HARDWARE, version="fresh", threads=1)
    yield engine
    engine.close()


async def ask(engine: EmbeddedEngine, prompt: list[int], sampling: Sampling) -> list[Piece]:
    return [piece async for piece in engine.generate(prompt, sampling)]


def greedy(engine: EmbeddedEngine) -> list[list[tuple[int, float | None]]]:
    """Ask one by one: sums of a batch are rounded as their number of rows has it."""

    async def in_turn() -> list[list[Piece]]:
        return [await ask(engine, engine.encode(prompt), GREEDY) for prompt in PROMPTS[::3]]

    answers = asyncio.run(in_turn())
    return [[(piece.token, piece.logprob) for piece in answer] for answer in answers]


def test_after_an_update_answers_equal_those_of_a_fresh_engine_bit_for_bit(
    engine: EmbeddedEngine, fresh: EmbeddedEngine, new: Path
) -> None:
    before = greedy(engine)
    engine.update(new, "v2")
    assert engine.version == "v2"
    assert greedy(engine) == greedy(fresh) != before


def test_answers_in_flight_go_on_as_the_new_weights_would_from_there(
    engine: EmbeddedEngine, fresh: EmbeddedEngine, new: Path
) -> None:
    sampling = Sampling(max_tokens=120, temperature=0, logprobs=1)

    async def stream(prompt: str, begun: asyncio.Event) -> list[Piece]:
        pieces = []
        async for piece in engine.generate(engine.encode(prompt), sampling):
            pieces.append(piece)
            begun.set()
        return pieces

    async def update_meanwhile() -> list[list[Piece]]:
        begun = [asyncio.Event() for _ in PROMPTS]
        streams = [asyncio.create_task(stream(*each)) for each in zip(PROMPTS, begun, strict=True)]
        for event in begun:
            await event.wait()
        await asyncio.to_thread(engine.update, new, "v2")
        return await asyncio.gather(*streams)

    for prompt, pieces in zip(PROMPTS, asyncio.run(update_meanwhile()), strict=True):
        versions = [piece.version for piece in pieces]
        first = versions.index("v2")
        assert versions == ["v1"] * first + ["v2"] * (len(pieces) - first)
        assert first
        tokens = [piece.token for piece in pieces]
        given = engine.encode(prompt) + tokens[:first]
        rest = Sampling(max_tokens=len(tokens) - first, temperature=0, logprobs=1)
        expected = asyncio.run(ask(fresh, given, rest))
        assert tokens[first:] == [piece.token for piece in expected]
        assert [piece.logprob for piece in pieces[first:]] == pytest.approx(
            [piece.logprob for piece in expected], abs=1e-4
        )


def changed(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return write


def poison(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan


def cut(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def rename_a_token(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def turn_faster(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 5e5
    (folder / "config.json").write_text(json.dumps(config))


KEY = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda folder: save_tiny_llama(folder, num_hidden_layers=3),
            "num_hidden_layers is 3, no",
        ),
        (turn_faster, "rope_parameters is {'rope_theta': 500000.0"),
        (changed(lambda tensors: tensors.pop(KEY)), f"has missing tensors: {KEY}"),
        (changed(lambda t: t.update(more=torch.ones(1))), "has unexpected tensors: more"),
        (changed(poison), r"tensor model\.layers\.1\.mlp\.up_proj\.weight .* are not finite"),
        (cut, "can't be loaded: "),
        (rename_a_token, "has other tokens than the model that serves; deploy it as a new rev"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_and_the_old_one_serves_on(
    engine: EmbeddedEngine,
    new: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    told: str,
) -> None:
    before = greedy(engine)
    folder = shutil.copytree(new, tmp_path / "bad")
    damage(folder)
    with pytest.raises(ValueError, match=told):
        engine.update(folder, "v2")
    assert engine.version == "v1"
    assert greedy(engine) == before


def test_a_folder_of_weights_alone_fits(
    engine: EmbeddedEngine, fresh: EmbeddedEngine, new: Path, tmp_path: Path
) -> None:
    for name in ("config.json", WEIGHTS):
        shutil.copy(new / name, tmp_path)
    engine.update(tmp_path, "v2")
    assert greedy(engine) == greedy(fresh)


def test_a_pass_that_computes_otherwise_than_the_model_is_refused(
    engine: EmbeddedEngine, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = greedy(engine)
    right = FastForward.__call__
    monkeypatch.setattr(FastForward, "__call__", lambda *given: right(*given).roll(1, -1))
    with pytest.raises(ValueError, match="log-probabilities for a plain prompt differ by 1"):
        engine.update(new, "v2")
    with pytest.raises(ValueError, match="log-probabilities for a plain prompt differ by 1"):
        EmbeddedEngine(new, HARDWARE)
    monkeypatch.undo()
    assert (engine.version, greedy(engine)) == ("v1", before)


def test_weights_serve_on_when_their_file_is_written_anew(
    new: Path, tmp_path: Path, fresh: EmbeddedEngine
) -> None:
    folder = shutil.copytree(new, tmp_path / "model")
    engine = EmbeddedEngine(folder, HARDWARE, threads=1)
    (folder / WEIGHTS).write_bytes(b"\xff" * (folder / WEIGHTS).stat().st_size)
    assert greedy(engine) == greedy(fresh)
    engine.close()


def some(old: Path, new: Path, target: Path, names: Sequence[str]) -> Path:
    """Write the tensors of `new` that have these names."""
    target.mkdir()
    tensors = load_file(new / WEIGHTS)
    save_file({name: tensors[name] for name in names}, target / WEIGHTS)
    return target


def test_what_has_changed_since_a_version_makes_the_next_one(
    engine: EmbeddedEngine, fresh: EmbeddedEngine, old: Path, new: Path, tmp_path: Path
) -> None:
    names = sorted(load_file(new / WEIGHTS))
    engine.update(some(old, new, tmp_path / "a", names[:7]), "v2", base="v1")
    assert engine.version == "v2"
    mixed = load_file(old / WEIGHTS) | load_file(tmp_path / "a" / WEIGHTS)
    whole = shutil.copytree(old, tmp_path / "whole")
    save_file(mixed, whole / WEIGHTS, metadata={"format": "pt"})
    other = EmbeddedEngine(whole, HARDWARE, threads=1)
    assert greedy(engine) == greedy(other)
    other.close()
    engine.update(some(old, new, tmp_path / "b", names[7:]), "v3", base="v2")
    assert greedy(engine) == greedy(fresh)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: {"more": torch.ones(1)}, "a tensor that the model has not: more"),
        (lambda _: {KEY: torch.ones(3, 3)}, r"has the shape \(3, 3\), not \(64, 64\)"),
        (lambda t: {KEY: t[KEY] * torch.nan}, "values that are not finite"),
        (None, "there is no model.safetensors in "),
    ],
)
def test_a_change_that_does_not_fit_is_refused_and_the_old_weights_serve_on(
    engine: EmbeddedEngine,
    new: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None,
    told: str,
) -> None:
    before = greedy(engine)
    if change is not None:
        save_file(change(load_file(new / WEIGHTS)), tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=told):
        engine.update(tmp_path, "v2", base="v1")
    assert (engine.version, greedy(engine)) == ("v1", before)
