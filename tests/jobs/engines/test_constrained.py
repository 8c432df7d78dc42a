"""Answers follow their grammar, whatever the model would rather say: json and jsonschema judge."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from jobs.engines.embedded import EmbeddedEngine
from jobs.engines.processors import ImpossibleError
from jobs.engines.scheduler import SUSPICIOUS
from orchestrator.engine import Grammar, Piece, Sampling
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(save_tiny_llama(tmp_path_factory.mktemp("model")), HARDWARE, threads=1)
    yield engine
    engine.close()


async def ask(
    engine: EmbeddedEngine, grammar: Grammar, seed: int, tokens: int = 400, heat: float = 1.0
) -> tuple[str, str | None]:
    sampling = Sampling(max_tokens=tokens, temperature=heat, seed=seed, grammar=grammar)
    pieces = engine.generate(engine.encode("answer:"), sampling)
    answer = [piece async for piece in pieces if isinstance(piece, Piece)]
    return "".join(piece.text for piece in answer), answer[-1].finish


def random_schema(dice: random.Random, depth: int = 0) -> dict[str, Any]:  # noqa: PLR0911 - a kind each
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const"]
    kind = dice.choice(kinds + ["object", "array", "anyOf"] * (depth < 2))
    if kind == "enum":
        return {"enum": dice.sample(["a", "bé", 1, 2.5, None, True], 3)}
    if kind == "const":
        return {"const": dice.choice(["x y", 7, False])}
    if kind == "string":
        return {"type": "string", "maxLength": dice.randint(0, 6)}
    if kind in {"integer", "number"}:
        low = dice.randint(-50, 50)
        return {"type": kind, "minimum": low, "maximum": low + dice.randint(1, 60)}
    if kind == "array":
        items = random_schema(dice, depth + 1)
        return {"type": "array", "items": items, "minItems": 1, "maxItems": dice.randint(1, 3)}
    if kind == "anyOf":
        return {"anyOf": [random_schema(dice, depth + 1) for _ in range(2)]}
    if kind == "object":
        names = dice.sample(["name", "b", "c d", "ü"], dice.randint(0, 3))
        return {
            "type": "object",
            "properties": {name: random_schema(dice, depth + 1) for name in names},
            "required": names[: dice.randint(0, len(names))],
            "additionalProperties": False,
        }
    return {"type": kind}


def test_json_of_many_schemas_at_once_is_valid_where_it_is_complete(
    engine: EmbeddedEngine,
) -> None:
    dice = random.Random(3)  # noqa: S311 - a test's dice
    schemas = [random_schema(dice) for _ in range(60)]

    async def all_at_once() -> list[tuple[str, str | None]]:
        grammars = [Grammar("json_schema", json.dumps(schema)) for schema in schemas]
        return await asyncio.gather(*(ask(engine, g, n) for n, g in enumerate(grammars)))

    complete = 0
    for schema, (text, finish) in zip(schemas, asyncio.run(all_at_once()), strict=True):
        if finish == "stop":
            jsonschema.validate(json.loads(text), schema)
            complete += 1
        else:
            assert finish == "length"
    assert complete > 45, "white space and strings end"


@pytest.mark.parametrize("heat", [0.0, 1.5])
def test_an_object_is_an_object_or_says_that_it_was_cut(
    engine: EmbeddedEngine, heat: float
) -> None:
    for seed in range(6):
        text, finish = asyncio.run(ask(engine, Grammar("json_object"), seed, heat=heat))
        assert text.lstrip().startswith("{")
        assert not re.search(r"\s{40}", text)
        if finish == "stop":
            assert isinstance(json.loads(text), dict)
        else:
            assert finish == "length"


def test_a_choice_is_one_of_them(engine: EmbeddedEngine) -> None:
    choices = ["yes", "no", 'with "quotes"', "é日本", "yes, but"]
    grammar = Grammar("choice", json.dumps(choices))
    seen = {asyncio.run(ask(engine, grammar, seed)) for seed in range(20)}
    assert {text for text, _ in seen} <= set(choices)
    assert {finish for _, finish in seen} == {"stop"}
    assert len(seen) > 1


@pytest.mark.parametrize("pattern", [r"[0-9]{3}-[a-f]{2}", r"(ab|cd){2,4}", r"é[日本]{3}"])
def test_a_regular_expression_is_matched(engine: EmbeddedEngine, pattern: str) -> None:
    for seed in range(5):
        text, finish = asyncio.run(ask(engine, Grammar("regex", pattern), seed))
        assert finish == "stop"
        assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    "text",
    ['start: "a" ("b" | "c") /[0-9]{2}/', 'root ::= "a" ("b" | "c") [0-9] [0-9]'],
    ids=["lark", "ebnf"],
)
def test_a_grammar_is_followed(engine: EmbeddedEngine, text: str) -> None:
    for seed in range(5):
        answer, finish = asyncio.run(ask(engine, Grammar("grammar", text), seed))
        assert finish == "stop"
        assert re.fullmatch(r"a[bc][0-9]{2}", answer)


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", '{"type": "no such type"}'),
        Grammar("json_schema", "no json"),
        Grammar("json_schema", '{"type": "array", "uniqueItems": true}'),
        Grammar("regex", "("),
        Grammar("regex", "(?=a)b"),
        Grammar("grammar", "start: nothing"),
        Grammar("grammar", "what is this"),
        Grammar("choice", "[]"),
        Grammar("choice", "no list"),
        Grammar("choice", "[1]"),
    ],
    ids=lambda grammar: f"{grammar.kind} {grammar.text}",
)
def test_a_wrong_grammar_is_the_requests_fault(engine: EmbeddedEngine, grammar: Grammar) -> None:
    with pytest.raises(ValueError, match=grammar.kind):
        asyncio.run(ask(engine, grammar, 0))
    assert engine.health() == ""


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", '{"$ref": "#"}'),
        Grammar("regex", r"[^\s\S]"),
        Grammar("grammar", "start: start"),
        Grammar("grammar", 'start: "a" start'),
    ],
    ids=lambda grammar: f"{grammar.kind} {grammar.text}",
)
def test_a_grammar_that_no_text_follows_is_the_requests_fault_and_says_nothing_of_the_engine(
    engine: EmbeddedEngine, grammar: Grammar, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in range(SUSPICIOUS):
        with pytest.raises(ImpossibleError, match="can't go on"):
            asyncio.run(ask(engine, grammar, seed))
    assert engine.health() == ""
    assert capfd.readouterr() == ("", "")


def test_a_bias_against_all_that_a_grammar_allows_is_the_requests_fault(
    engine: EmbeddedEngine,
) -> None:
    sampling = Sampling(
        max_tokens=9,
        grammar=Grammar("json_schema", '{"const": true}'),
        logit_bias={engine.encode("u")[0]: -100.0},
    )

    async def answer() -> list[Any]:
        return [piece async for piece in engine.generate(engine.encode("x"), sampling)]

    with pytest.raises(ImpossibleError, match="biases and grammar leave no token"):
        asyncio.run(answer())


def test_constrained_and_free_answers_go_together(engine: EmbeddedEngine) -> None:
    free = Sampling(max_tokens=30, temperature=0)

    async def ask_free() -> list[int]:
        pieces = engine.generate(engine.encode("free"), free)
        return [piece.token async for piece in pieces if isinstance(piece, Piece)]

    async def together() -> list[Any]:
        grammar = Grammar("regex", "[a-z]{20}")
        return await asyncio.gather(ask_free(), ask(engine, grammar, 1), ask_free())

    alone = asyncio.run(ask_free())
    first, (text, _), second = asyncio.run(together())
    assert first == second == alone
    assert re.fullmatch("[a-z]{20}", text)
