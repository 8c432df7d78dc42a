"""The reference pass: what the trained model says, by its own forward pass in float32.

It runs on the pool that trained it, or on one like it. The same model then answers again: in
bfloat16, in another batch shape, and in the precision in which it was trained there. How far those
are from the reference is the noise floor: what rounding alone does to this model, on this pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoConfig

from jobs.data.dataset import read_facts
from jobs.data.splits import TEST
from jobs.data.tokenizer import load_tokenizer
from jobs.engines.type_limits import check_type
from jobs.engines.weights import load
from jobs.formats.exported_generation import generation_fields
from jobs.parity.comparison import Responses, compare
from jobs.parity.distances import perplexity, right, share
from jobs.parity.model_config import ends_in_folder, fields_in_folder
from jobs.parity.passes import HALVES, MIXED, REFERENCE, RESHAPED, Asker, Output, Pass
from jobs.parity.questions import CHATS, TEXTS, Question, choose
from jobs.parity.reading import Chat, Floor, Reference, write
from jobs.parity.tokenizer_parts import digests_of_export
from jobs.parity.weight_norms import Norms, norms
from jobs.training.pretraining_recipe import check_tokens
from jobs.training.step import wants_bf16
from orchestrator.job import JobContext, Metrics

_FEW = 8  # tasks whose own words both must encode alike


def measure(  # noqa: PLR0913 - the parameters of a config
    ctx: JobContext,
    *,
    split: str = TEST,
    questions: int = 128,
    max_tokens: int = 16,
    places: int = 64,
    top: int = 256,
    precision: str = "auto",
    micro_batch_tokens: int | None = None,
) -> Metrics:
    """Ask the input `model` questions of the input `data`, and keep what it says.

    Args:
        ctx: The context.
        split: The split that the questions come from.
        questions: How many; evenly over the split. The verdict is the surer the more they are.
        max_tokens: Most tokens of a greedy answer.
        places: Most tokens of a text that are scored.
        top: Likeliest tokens that are kept a place.
        precision: In which the model was trained (`auto`, `fp32`, `bf16`), as `pretrain` has it.
        micro_batch_tokens: Most tokens that the model takes at once, where its passes would take
            more; one question at the least.

    Raises:
        ValueError: There is nothing to ask, or the model has no places for it.
    """
    check_tokens(micro_batch_tokens)
    task = read_facts(ctx.inputs["data"]).task
    asked = _questions(ctx, split, questions, places, tasks=task is not None)
    _check_lengths(ctx.inputs["model"], asked, max_tokens)
    tokenizer = load_tokenizer(ctx.inputs["model"])
    mixed = (MIXED,) if wants_bf16(precision, ctx.hardware) else ()
    passes = (RESHAPED, *mixed, *HALVES)
    work = _Work(
        ctx.inputs["model"],
        tokenizer,
        ctx.device,
        top,
        max_tokens,
        ctx.adjust.accumulate,
        micro_batch_tokens,
    )
    first, *others = work.outputs((REFERENCE, *passes), asked, ctx.progress)
    responses = _responses(first, task, asked)
    reference = Reference(
        pool=ctx.hardware.pool,
        precision=REFERENCE.precision,
        seed=ctx.seed,
        task=task,
        max_tokens=max_tokens,
        top=top,
        questions=tuple(asked),
        answers=first.answers,
        texts=tuple((text, tuple(tokenizer(text)["input_ids"])) for text in _texts(asked)),
        chats=tuple(chats_of(tokenizer)),
        ends=ends_in_folder(ctx.inputs["model"]),
        config=fields_in_folder(ctx.inputs["model"]),
        generation=generation_fields(ctx.inputs["model"]),
        tokenizers=digests_of_export(ctx.inputs["model"]),
        scores=first.scores,
        experts=first.experts,
        floor=tuple(
            _noise(forward_pass, responses, _responses(other, task, asked))
            for forward_pass, other in zip(passes, others, strict=True)
        ),
        norms=work.norms,
    )
    if ctx.rank == 0:
        write(reference, ctx.output)
    return _metrics(ctx, reference, responses)


def _questions(
    ctx: JobContext, split: str, wanted: int, most: int, *, tasks: bool
) -> Sequence[Question]:
    """Return the questions of a split, `wanted` where it has as many.

    Raises:
        ValueError: It has none.
    """
    asked = choose(ctx.inputs["data"], split, wanted, most=most, tasks=tasks)
    if not asked:
        raise ValueError(f"no row of split {split!r} has a label: there is nothing to compare")
    if len(asked) < wanted:
        ctx.log(
            f"split {split!r} has {len(asked)} texts, questions={wanted!r} are asked for: the "
            f"gate is the less sure; hold out more of the data"
        )
    return asked


def _check_lengths(folder: Path, questions: Sequence[Question], max_tokens: int) -> None:
    """Check that engines serve such a model, and each question and its answer fit its context.

    Raises:
        ValueError: They don't, or one does not.
    """
    whole = AutoConfig.from_pretrained(folder, local_files_only=True)
    check_type(whole)
    config = whole.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    text = max(len(question.tokens) for question in questions)
    prompt = max(question.begin for question in questions)
    if most is not None and text > most:
        raise ValueError(f"a text of {text} tokens is more than the model's {most} positions")
    if most is not None and prompt + max_tokens > most:
        raise ValueError(
            f"a prompt of {prompt} tokens and max_tokens={max_tokens!r} of answer are more than "
            f"the model's {most} positions"
        )


def _noise(forward_pass: Pass, first: Responses, again: Responses) -> Floor:
    """Return how far the responses `again` are from the `first` ones."""
    return Floor(
        name=forward_pass.name, precision=forward_pass.precision, comparison=compare(first, again)
    )


def _metrics(ctx: JobContext, reference: Reference, responses: Responses) -> dict[str, float]:
    """Return the headline figures, and tell the noise of each pass, nats."""
    values = {
        "reference/perplexity": perplexity(reference.scores),
        "reference/questions": float(len(reference.questions)),
        "reference/places": float(sum(question.places for question in reference.questions)),
    }
    for floor in reference.floor:
        noise = float(floor.comparison.kl.mean())
        ctx.log(f"noise of {floor.name}: mean KL {noise:.3g} nats")
        name = f"reference/noise_{floor.precision}"
        values[name] = max(values.get(name, 0.0), noise)
    return {**values, "reference/accuracy": share(responses.right)} if reference.task else values


def _responses(output: Output, task: str | None, questions: Sequence[Question]) -> Responses:
    return Responses(
        scores=output.scores,
        answers=output.answers,
        right=right(task, questions, output.answers) if output.answers else (),
        experts=output.experts,
    )


@dataclass(slots=True)
class _Work:
    """Loads the model in each type of weights once, and asks it."""

    folder: Path
    tokenizer: Any
    device: str
    top: int
    max_tokens: int
    split: int
    most_tokens: int | None
    norms: Norms = field(default_factory=dict)

    def outputs(
        self,
        passes: Sequence[Pass],
        questions: Sequence[Question],
        done: Callable[[int, int], object],
    ) -> Iterator[Output]:
        """Yield what the model says in each pass; `passes` are grouped by their weights.

        `done` is told how many questions are answered, of how many in all the passes.
        """

        def answered(number: int, count: int) -> None:
            done(number * len(questions) + count, len(passes) * len(questions))

        model, held = None, None
        for number, forward_pass in enumerate(passes):
            if forward_pass.weights != held:
                del model  # one at a time
                held = forward_pass.weights
                model = load(self.folder, held, self.device)
            if forward_pass is REFERENCE:
                self.norms = norms(model)
            asker = Asker(
                model=model,
                tokenizer=self.tokenizer,
                device=self.device,
                top=self.top,
                max_tokens=self.max_tokens,
                split=self.split,
                most_tokens=self.most_tokens,
            )
            yield asker.ask(forward_pass, questions, partial(answered, number))


def _texts(questions: Sequence[Question]) -> list[str]:
    """Return the texts that both must encode alike: the tasks' own words among them."""
    return [
        *TEXTS,
        *(str(question.example["question"]) for question in questions[:_FEW] if question.example),
    ]


def chats_of(tokenizer: Any) -> list[Chat]:  # noqa: ANN401 - foreign and untyped
    """Return the chats as the tokenizer's template has them; none where it has no template."""
    return [
        Chat(messages=chat, text=text, tokens=tuple(_plain(tokenizer, text)))
        for chat in CHATS
        if (text := rendered(tokenizer, chat)) is not None
    ]


def rendered(tokenizer: Any, chat: Sequence[dict[str, str]]) -> str | None:  # noqa: ANN401 - as above
    """Return the text that the template makes of a chat; `None` where it makes none."""
    if not tokenizer.chat_template:
        return None
    try:
        text: str = tokenizer.apply_chat_template(
            list(chat), add_generation_prompt=True, tokenize=False
        )
    except jinja2.TemplateError:
        return None
    return text


def _plain(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401 - as above
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
