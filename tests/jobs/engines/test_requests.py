"""What a request may ask of the embedded engine, judged by transformers' own generation."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.engines.batch import Batch
from jobs.engines.embedded import EmbeddedEngine
from orchestrator.engine import Piece, Prompt, Sampling
from tests.jobs.engines.tiny_llama import EOS, HARDWARE, continued

GREEDY = Sampling(max_tokens=40, temperature=0)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


async def ask(
    engine: EmbeddedEngine, prompt: Sequence[int], sampling: Sampling
) -> list[Piece | Prompt]:
    return [outcome async for outcome in engine.generate(prompt, sampling)]


def answer(engine: EmbeddedEngine, prompt: Sequence[int], sampling: Sampling) -> list[Piece]:
    outcomes = asyncio.run(ask(engine, prompt, sampling))
    return [outcome for outcome in outcomes if isinstance(outcome, Piece)]


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("asked", "foreign"),
    [
        ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
        ({"logit_bias": {5: 6.0, 9: -4.0}}, {"sequence_bias": {(5,): 6.0, (9,): -4.0}}),
        ({"min_tokens": 30}, {"min_new_tokens": 30}),
    ],
)
def test_greedy_answers_equal_generate(
    engine: EmbeddedEngine, model: Any, asked: dict[str, Any], foreign: dict[str, Any]
) -> None:
    for prompt in ([1, 2, 3], [70, 71, 72, 70, 71]):
        mine = answer(engine, prompt, replace(GREEDY, **asked))
        assert [piece.token for piece in mine] == continued(model, prompt, **foreign)


@pytest.mark.parametrize("length", [1, 2, 40, 500])
def test_scores_of_a_prompt_are_those_of_the_model(
    engine: EmbeddedEngine, model: Any, length: int
) -> None:
    prompt = [(31 * place + 7) % 250 for place in range(length)]
    with torch.inference_mode():
        logs = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
    for tokens in (0, 4):
        sampling = replace(GREEDY, max_tokens=tokens, prompt_logprobs=3)
        first, *pieces = asyncio.run(ask(engine, prompt, sampling))
        assert isinstance(first, Prompt)
        assert len(pieces) == tokens
        assert first.version == engine.version
        assert first.scores[0] is None
        assert len(first.scores) == length
        for place, score in enumerate(first.scores[1:], 1):
            assert score is not None
            assert score.logprob == pytest.approx(float(logs[place - 1, prompt[place]]), abs=1e-4)
            values, ids = logs[place - 1].topk(3)
            assert list(score.top) == ids.tolist()
            assert list(score.logprobs) == pytest.approx(values.tolist(), abs=1e-4)
        expected = answer(engine, prompt, replace(GREEDY, max_tokens=4))[:tokens]
        assert [p.token for p in pieces if isinstance(p, Piece)] == [p.token for p in expected]


def test_no_tokens_without_scores_is_refused(engine: EmbeddedEngine) -> None:
    with pytest.raises(ValueError, match="max_tokens=0"):
        answer(engine, [1], replace(GREEDY, max_tokens=0))


def test_a_stop_token_ends_and_is_named_and_not_printed(engine: EmbeddedEngine) -> None:
    whole = answer(engine, [1, 2, 3], GREEDY)
    stop = whole[6].token
    at = [piece.token for piece in whole].index(stop)
    stopped = answer(engine, [1, 2, 3], replace(GREEDY, stop_token_ids=(stop,)))
    assert [piece.token for piece in stopped] == [piece.token for piece in whole[: at + 1]]
    assert (stopped[-1].finish, stopped[-1].stopped_by) == ("stop", stop)
    included = replace(GREEDY, stop_token_ids=(stop,), include_stop=True)
    ids = [piece.token for piece in stopped]
    assert text(stopped) == engine.decode(ids[:-1])
    assert text(answer(engine, [1, 2, 3], included)) == engine.decode(ids)
    later = answer(engine, [1, 2, 3], replace(GREEDY, stop_token_ids=(stop,), min_tokens=at + 2))
    assert len(later) >= at + 2


def test_a_stop_string_waits_for_the_least_tokens(engine: EmbeddedEngine) -> None:
    whole = text(answer(engine, engine.encode("hello"), GREEDY))
    asked = replace(GREEDY, stop=(whole[5:8],), min_tokens=40)
    late = answer(engine, engine.encode("hello"), asked)
    assert text(late) == whole
    assert late[-1].finish == "length"


def with_config(folder: Path, target: Path, **config: Any) -> Path:
    shutil.copytree(folder, target)
    file = target / "generation_config.json"
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**old, **config}))
    return target


def test_each_of_several_ends_of_text_ends_the_answer(
    engine: EmbeddedEngine, folder: Path, tmp_path: Path
) -> None:
    whole = answer(engine, [1, 2, 3], GREEDY)
    for place in (3, 11):
        end = whole[place].token
        at = [piece.token for piece in whole].index(end)
        ends = with_config(folder, tmp_path / str(place), eos_token_id=[EOS, end, 9999])
        several = EmbeddedEngine(ends, HARDWARE, threads=1)
        pieces = answer(several, [1, 2, 3], GREEDY)
        assert [piece.token for piece in pieces] == [piece.token for piece in whole[: at + 1]]
        assert text(pieces) == engine.decode([piece.token for piece in pieces[:-1]])
        assert pieces[-1].finish == "stop"
        assert pieces[-1].stopped_by is None
        ignoring = answer(several, [1, 2, 3], replace(GREEDY, ignore_eos=True))
        assert [piece.token for piece in ignoring] == [piece.token for piece in whole]
        assert len(answer(several, [1, 2, 3], replace(GREEDY, min_tokens=25))) >= 25
        several.close()


def test_defaults_are_those_that_the_model_comes_with(folder: Path, tmp_path: Path) -> None:
    given = {"do_sample": False, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.01}
    given |= {"repetition_penalty": 1.05, "max_new_tokens": 77}
    engine = EmbeddedEngine(with_config(folder, tmp_path / "m", **given), HARDWARE, threads=1)
    del given["do_sample"], given["max_new_tokens"]
    assert engine.defaults == {**given, "max_tokens": 77}
    engine.close()


def test_a_tokenizer_without_padding_and_with_a_token_too_many_serves_all_else(
    folder: Path, tmp_path: Path
) -> None:
    target = shutil.copytree(folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert tokenizer.pad_token is None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    tokenizer.save_pretrained(target)
    engine = EmbeddedEngine(target, HARDWARE, threads=1)
    prompt = engine.encode("a picture: <|image|>")
    assert max(prompt) == 257
    with pytest.raises(ValueError, match=r"no row for token 257 \('<\|image\|>'\)"):
        answer(engine, prompt, GREEDY)
    chat = engine.encode_chat([{"role": "user", "content": "<|image|>"}])
    with pytest.raises(ValueError, match="no row for token"):
        answer(engine, chat, GREEDY)
    assert len(answer(engine, engine.encode("hello"), GREEDY)) == 40
    assert engine.health() == ""
    engine.close()


def test_an_end_that_is_not_marked_as_special_is_not_printed(folder: Path, tmp_path: Path) -> None:
    target = shutil.copytree(folder, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = json.loads((target / name).read_text())
        tokens = (
            content.get("added_tokens", []) or content.get("added_tokens_decoder", {}).values()
        )
        for token in tokens:
            token["special"] = False
        if name == "tokenizer_config.json":
            content.pop("eos_token", None)
        (target / name).write_text(json.dumps(content))
    engine = EmbeddedEngine(target, HARDWARE, threads=1)
    assert engine._tokenizer.decode([EOS]) == "<eos>"
    pieces = answer(engine, [1, 2], replace(GREEDY, logit_bias={EOS: 100.0}))
    assert [(piece.token, piece.text, piece.finish) for piece in pieces] == [(EOS, "", "stop")]
    shown = replace(GREEDY, logit_bias={EOS: 100.0}, include_stop=True)
    assert text(answer(engine, [1, 2], shown)) == "<eos>"
    engine.close()


def test_a_text_that_no_context_holds_is_refused_before_it_is_read(engine: EmbeddedEngine) -> None:
    with pytest.raises(ValueError, match="characters are more than max_context=512"):
        engine.encode("x" * 5_000_000)
    with pytest.raises(ValueError, match="characters are more than max_context=512"):
        engine.encode_chat([{"role": "user", "content": "x" * 5_000_000}])


def test_choices_of_one_prompt_read_it_once(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = [(13 * place) % 250 for place in range(200)]
    other = [*prompt[:150], *([3] * 40)]
    expected = [answer(engine, given, GREEDY) for given in (prompt, other)]
    reads: list[int] = []
    batch = engine._batch
    right = batch.weights.run

    def counting(new: Any, cache: Any, **more: Any) -> torch.Tensor:
        reads.append(sum(map(len, new)))
        return right(new, cache, **more)

    monkeypatch.setattr(batch, "weights", replace(batch.weights, run=counting))

    async def several() -> list[list[Piece | Prompt]]:
        return await asyncio.gather(*(ask(engine, p, GREEDY) for p in [*[prompt] * 6, other]))

    answers = asyncio.run(several())
    assert [[p.token for p in pieces] for pieces in answers] == [
        [piece.token for piece in pieces] for pieces in [*[expected[0]] * 6, expected[1]]
    ]
    made = 7 * 40
    assert sum(reads) < 200 + 40 + made + 10
    assert isinstance(batch, Batch)
