"""Tasks of lm-evaluation-harness: its own Hugging Face backend, in float32, is the judge."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.data.dataset import read_examples
from jobs.evaluation.harness import evaluate
from jobs.evaluation.intervals import wilson
from tests.jobs.local_context import LocalContext
from tests.ports import free_address

QUESTIONS = 24
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
metadata: {{version: 1}}
"""
KINDS = {
    "multiple_choice": 'doc_to_choice: "{{choices}}"\ndoc_to_target: "{{right}}"\n',
    "generate_until": """doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n", "7"], max_gen_toks: 6, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "loglikelihood_rolling": """doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
}
TASKS = {"chosen": "multiple_choice", "said": "generate_until", "read": "loglikelihood_rolling"}
ASKED: dict[str, Any] = {"tasks": list(TASKS), "bootstrap_iters": 0}


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory, sums: Path) -> Path:
    """A folder with a task of each kind, over files, of the sums that the model learnt."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {
            "question": item["question"],
            "answer": item["answer"] if number % 2 else "1",
            "choices": [item["answer"], str(number), "1 2", "é€"],
            "right": number % 4,
        }
        for number, item in enumerate(read_examples(sums, "test")[:QUESTIONS])
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, kind in TASKS.items():
        text = TASK.format(name=name, data=data, kind=kind)
        (folder / f"{name}.yaml").write_text(text + KINDS[kind])
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture
def context(tmp_path: Path, undisturbed: LocalContext, tasks: Path) -> LocalContext:
    return LocalContext(folder=tmp_path, inputs={"model": undisturbed.output, "tasks": tasks})


def judged(model: Path, tasks: Path, **asked: Any) -> Mapping[str, Any]:
    """Return what lm-eval finds of a folder by transformers."""
    from lm_eval import simple_evaluate  # here: it brings much into whoever collects tests
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    found: Mapping[str, Any] = simple_evaluate(
        HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=4),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        **ASKED,
        **asked,
    )
    return found


def answers(sample: Mapping[str, Any]) -> list[Any]:
    return [one[0] if isinstance(one, list | tuple) else one for one in sample["filtered_resps"]]


def compare(ctx: LocalContext, told: Mapping[str, float], judge: Mapping[str, Any]) -> None:
    for task, name in (
        ("chosen", "acc"),
        ("said", "exact_match"),
        ("read", "word_perplexity"),
        ("read", "bits_per_byte"),
    ):
        wanted = judge["results"][task][f"{name},none"]
        assert told[f"lm_eval/{task}/{name}"] == pytest.approx(wanted, rel=1e-5)
    text = (ctx.output / "samples.jsonl").read_text("utf-8")
    kept = [json.loads(line) for line in text.splitlines()]
    for task in ("chosen", "said"):
        mine = [sample for sample in kept if sample["task"] == task]
        for one, other in zip(mine, judge["samples"][task], strict=True):
            if task == "said":
                assert answers(one) == answers(other)
            else:
                both = [[float(value) for value in answers(side)] for side in (one, other)]
                assert both[0] == pytest.approx(both[1], abs=1e-4)


def test_an_engine_scores_as_lm_evals_own_backend(context: LocalContext, tasks: Path) -> None:
    told = evaluate(context, tasks=list(TASKS))
    judge = judged(context.inputs["model"], tasks)
    compare(context, told, judge)
    right = round(told["lm_eval/chosen/acc"] * QUESTIONS)
    low, high = (told[f"lm_eval/chosen/acc_{end}"] for end in ("low", "high"))
    assert (low, high) == wilson(right, QUESTIONS)
    for name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        value, low, high = (told[f"lm_eval/read/{name}{end}"] for end in ("", "_low", "_high"))
        assert low < value < high
    assert context.points == [(0, told)]


def test_a_group_has_the_interval_of_all_its_tasks(
    context: LocalContext, tasks: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(tasks, own)
    again = (own / "chosen.yaml").read_text().replace("task: chosen", "task: again")
    (own / "again.yaml").write_text(again)
    group = "group: both\ntask: [chosen, again]\naggregate_metric_list: [{metric: acc}]\n"
    (own / "both.yaml").write_text(group)
    told = evaluate(context, tasks=["both"], include_path=str(own))
    value, low, high = (told[f"lm_eval/both/acc{end}"] for end in ("", "_low", "_high"))
    alone = [told[f"lm_eval/chosen/acc_{end}"] for end in ("low", "high")]
    assert low <= value <= high
    assert high - low < alone[1] - alone[0]


def test_an_endpoint_scores_as_lm_evals_own_backend(
    context: LocalContext, tasks: Path, endpoint: str
) -> None:
    told = evaluate(context, tasks=list(TASKS), endpoint=endpoint, served="sums", max_context=512)
    compare(context, told, judged(context.inputs["model"], tasks))


def test_chats_and_examples_are_asked_as_by_lm_evals_own_backend(
    context: LocalContext, tasks: Path
) -> None:
    asked: dict[str, Any] = {"limit": 8}
    told = evaluate(context, tasks=list(TASKS), chat=True, **asked)
    judge = judged(context.inputs["model"], tasks, apply_chat_template=True, **asked)
    compare(context, told, judge)


def test_lm_evals_client_of_chats_gets_the_same_answers(
    context: LocalContext, tasks: Path, endpoint: str
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        "local-chat-completions",
        model_args={"model": "sums", "base_url": f"{endpoint}/chat/completions"},
        **{**ASKED, "tasks": ["said"]},
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        apply_chat_template=True,
    )
    judge = judged(context.inputs["model"], tasks, apply_chat_template=True)
    both = [list(map(answers, side["samples"]["said"])) for side in (found, judge)]
    assert both[0] == both[1]


def test_a_task_of_ones_own_is_taken_by_its_path_and_shown_in_a_table(
    context: LocalContext, tasks: Path
) -> None:
    told = evaluate(context, tasks=[str(tasks / "said.yaml")], limit=5)
    assert set(told) == {f"lm_eval/said/exact_match{end}" for end in ("", "_low", "_high")}
    shown = list(csv.DictReader(io.StringIO(context.reports["answers.csv"])))
    assert [row["task"] for row in shown] == ["said"] * 5
    right = [row["prediction"] == row["answer"] for row in shown]
    assert [row["verdict"] == "exact_match=1.0" for row in shown] == right


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("chosn", "lm-eval has no task 'chosn'; did you mean 'chosen'"),
        ("nothing/of/the.yaml", "there is no file 'nothing/of/the.yaml'"),
        ("TASKS/rows.jsonl", "rows.jsonl' can't be made into a task: "),
        ("TASKS/text.yaml", "text.yaml' can't be made into a task: "),
        ("TASKS/empty.yaml", "empty.yaml' can't be made into a task: "),
        ("TASKS/gone.yaml", "gone.yaml' can't be made into a task: FileNotFoundError"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(
    tmp_path: Path, context: LocalContext, tasks: Path, wanted: str, said: str
) -> None:
    (tasks / "text.yaml").write_text("task: [")
    (tasks / "empty.yaml").write_text("")
    gone = (tasks / "said.yaml").read_text().replace("rows.jsonl", "gone.jsonl")
    (tasks / "gone.yaml").write_text(gone.replace("task: said", "task: gone"))
    with pytest.raises(ValueError, match=said) as refused:
        evaluate(context, tasks=[wanted.replace("TASKS", str(tasks))])
    assert "\n" not in str(refused.value)


def test_an_endpoint_that_is_away_is_named_in_one_line(context: LocalContext) -> None:
    address = f"http://{free_address()}/v1"
    with pytest.raises(
        ConnectionError, match=re.escape(f"the endpoint {address!r} can't be reached")
    ) as away:
        evaluate(context, tasks=["said"], endpoint=address, served="sums")
    assert "\n" not in str(away.value)


def test_an_endpoint_without_that_model_is_named(context: LocalContext, endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"lm-eval can.t go on: .*404"):
        evaluate(context, tasks=["said"], endpoint=endpoint, served="other", limit=1)


def test_one_worker_asks(context: LocalContext) -> None:
    context.world_size = 2
    with pytest.raises(ValueError, match=r"one worker, not 2: needs\.workers=1"):
        evaluate(context, tasks=["said"])


def test_no_tasks_are_refused(context: LocalContext) -> None:
    with pytest.raises(ValueError, match="tasks is empty"):
        evaluate(context)
