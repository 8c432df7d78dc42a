"""Measures a model by tasks of lm-evaluation-harness: its own, and the user's.

lm-eval builds the questions and judges the answers; an engine in this process gives them, or an
endpoint. Its data sets come from a hub, unless a task names files or the node has them in its
cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from jobs.data.tokenizer import load_tokenizer
from jobs.engines import EMBEDDED
from jobs.engines.border import attempt
from jobs.evaluation.aggregates import ends_of
from jobs.evaluation.answer_table import NAME, table
from jobs.evaluation.respondents import client_of, open_engine, reached
from orchestrator.job import JobContext, Metrics

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

REPORT_NAME = "report.json"
SAMPLES_NAME = "samples.jsonl"

_SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")


def evaluate(  # noqa: PLR0913 - the parameters of a job are its configuration
    ctx: JobContext,
    *,
    tasks: Sequence[str] = (),
    include_path: str = "",
    limit: int | None = None,
    fewshot: int | None = None,
    chat: bool = False,
    engine: str = EMBEDDED,
    options: dict[str, object] | None = None,
    endpoint: str = "",
    served: str = "",
    at_once: int = 16,
    max_context: int = 2048,
) -> Metrics:
    """Evaluate the input `model` on tasks; with an `endpoint`, only its tokenizer is taken.

    Args:
        ctx: The context.
        tasks: Names of tasks, or paths of their YAML files.
        include_path: A folder of tasks of your own; by default the input `tasks`, if there is one.
        limit: Most questions of each task.
        fewshot: Examples before each question; by default the task's own number.
        chat: Whether to ask by the chat template.
        engine: Dotted name of the engine class that answers.
        options: Options of the engine.
        endpoint: Address of an endpoint that answers instead (`http://HOST:PORT/v1`). It has to
            give log-probabilities of prompts (`echo`), for tasks that choose among answers.
        served: The model's name there.
        at_once: Requests to the endpoint at once.
        max_context: Tokens of a prompt and its answer there.

    Raises:
        ValueError: There is no such task, a file is no task, or the endpoint refuses.
        ConnectionError: The endpoint is away.
    """
    if ctx.world_size > 1:
        raise ValueError(f"lm-eval asks from one worker, not {ctx.world_size}: needs.workers=1")
    if not tasks:
        raise ValueError("tasks is empty: give names of lm-eval's tasks, or paths of your own")
    evaluation: dict[str, Any] = {
        **_chosen(tasks, include_path or ctx.inputs.get("tasks")),
        "limit": limit,
        "num_fewshot": fewshot,
        "apply_chat_template": chat,
        "bootstrap_iters": 0,  # intervals are made of what it says of each question
        **dict.fromkeys(_SEEDS, ctx.seed),
    }
    if endpoint:
        limits = {"num_concurrent": at_once, "max_length": max_context}
        return _record(ctx, _of_endpoint(ctx, evaluation, endpoint, served, limits))
    return _record(ctx, _of_engine(ctx, evaluation, engine, options or {}))


def _of_endpoint(
    ctx: JobContext,
    evaluation: Mapping[str, Any],
    endpoint: str,
    served: str,
    limits: Mapping[str, int],
) -> Mapping[str, Any]:
    """Return what lm-eval finds when an endpoint answers."""
    reached(endpoint, _listed(endpoint))
    arguments = {
        "model": served,
        "base_url": f"{endpoint.rstrip('/')}/completions",
        "tokenizer": str(ctx.inputs["model"]),
        "seed": ctx.seed,
        **limits,
    }
    with ctx.busy("asking the endpoint"):
        return _evaluated("local-completions", evaluation, model_args=arguments)


def _of_engine(
    ctx: JobContext, evaluation: Mapping[str, Any], engine: str, options: Mapping[str, object]
) -> Mapping[str, Any]:
    """Return what lm-eval finds when an engine in this process answers."""
    from jobs.evaluation.engine_lm import EngineLM

    folder = ctx.inputs["model"]
    with closing(open_engine(engine, folder, ctx.hardware, options)) as opened:
        tokenizer = load_tokenizer(folder)
        return _evaluated(
            EngineLM(opened, tokenizer, seed=ctx.seed, done=ctx.progress), evaluation
        )


def _chosen(names: Sequence[str], include_path: str | Path | None) -> dict[str, Any]:
    """Return the tasks, and groups of tasks, of these names, and what knows them.

    Raises:
        ValueError: lm-eval is not installed, or one is none of its tasks.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise ValueError(
            "lm-eval is not installed: install orchestrator[evaluation] in the Python of this pool"
        ) from error
    if include_path and not Path(include_path).is_dir():
        raise ValueError(f"include_path={str(include_path)!r} is no folder")
    manager = TaskManager(include_path=include_path or None, include_defaults=False)
    if not all(name in manager.all_tasks or _is_path(name) for name in names):
        manager = TaskManager(include_path=include_path or None)  # its own are some 10,000 files
    tasks = [task for name in names for task in _built(manager, name)]
    return {"tasks": tasks, "task_manager": manager}


def _built(manager: TaskManager, name: str) -> list[Any]:
    """Return a group of tasks, a task, or those of a tag."""
    if _is_path(name) and not Path(name).is_file():
        raise ValueError(f"tasks: there is no file {name!r}")
    if not _is_path(name) and name not in manager.all_tasks:
        near = get_close_matches(name, manager.all_tasks, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "set include_path to the folder of yours"
        raise ValueError(f"tasks: lm-eval has no task {name!r}; {hint}")
    loaded = _reached(f"tasks: {name!r} can't be made into a task", lambda: manager.load([name]))
    group = loaded.get("groups", {}).get(name)
    return list(loaded["tasks"].values()) if group is None else [group]


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


async def _listed(endpoint: str) -> None:
    """Ask an endpoint for its models: it answers, if it is there."""
    async with client_of(endpoint) as client:
        await client.models.list()


def _evaluated(model: Any, evaluation: Mapping[str, Any], **more: object) -> Mapping[str, Any]:  # noqa: ANN401 - foreign
    """Return what lm-eval finds."""
    from lm_eval import simple_evaluate

    results: Mapping[str, Any] = _reached(
        "lm-eval can't go on", lambda: simple_evaluate(model, **evaluation, **more)
    )
    return results


def _reached(what: str, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - as it gives
    """Return what lm-eval's code, or that of a task, gives.

    Raises:
        ValueError: It fails, in one line.
    """
    given = attempt(act)
    if not isinstance(given, Exception):
        return given
    reason = " ".join(str(given).split())
    raise ValueError(f"{what}: {type(given).__name__}: {reason}") from given


def _record(ctx: JobContext, results: Mapping[str, Any]) -> dict[str, float]:
    """Keep what lm-eval says, show a table of it, and return its figures."""
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = results["samples"]
    values = dict(_figures(results))
    ctx.metrics(values, step=0)
    ctx.report(
        NAME, table([_row(task, sample) for task, all_ in samples.items() for sample in all_])
    )
    kept = {name: value for name, value in results.items() if name != "samples"}
    text = json.dumps(kept, indent=2, sort_keys=True, default=str)
    (ctx.output / REPORT_NAME).write_text(f"{text}\n", "utf-8")
    with (ctx.output / SAMPLES_NAME).open("w", encoding="utf-8") as file:
        for task, all_ in samples.items():
            file.writelines(
                f"{json.dumps({'task': task, **sample}, default=str)}\n" for sample in all_
            )
    return values


def _figures(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield each figure of each task and group by its name, and between what it surely is."""
    samples, groups = results["samples"], results.get("group_subtasks", {})
    for task, figures in results["results"].items():
        for label, value in figures.items():
            metric, _, kind = label.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name = f"lm_eval/{task}/{metric}" + ("" if kind == "none" else f"/{kind}")
            yield name, float(value)
            each = (
                _of_questions(samples.get(leaf, ()), metric, kind)
                for leaf in _leaves(task, groups)
            )
            ends = ends_of(float(value), [pairs for pairs in each if pairs])
            if ends:
                yield f"{name}_low", ends[0]
                yield f"{name}_high", ends[1]


def _leaves(task: str, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the tasks of a group, or the task itself."""
    if task not in groups:
        yield task
    for child in groups.get(task, ()):
        yield from _leaves(child, groups)


def _of_questions(
    samples: Sequence[Mapping[str, Any]], metric: str, kind: str
) -> list[tuple[float, float]]:
    """Return a metric of each question, and what it counts: 1, or its words or bytes."""
    values = [sample.get(metric) for sample in samples if sample["filter"] == kind]
    pairs = [(value, 1.0) if isinstance(value, bool | int | float) else value for value in values]
    return [(float(pair[0]), float(pair[1])) for pair in pairs if _is_pair(pair)]


def _is_pair(value: object) -> TypeGuard[Sequence[float]]:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2  # noqa: PLR2004 - a pair
        and all(isinstance(number, bool | int | float) for number in value)
    )


def _row(task: str, sample: Mapping[str, Any]) -> dict[str, object]:
    """Return a question of a task as a row: of choices the likeliest one is the answer."""
    given = sample["filtered_resps"]
    likely = [float(choice[0]) for choice in given if isinstance(choice, list | tuple)]
    answer = given[0] if len(likely) < 2 else sample["arguments"][likely.index(max(likely))][1]  # noqa: PLR2004 - a choice
    verdict = {metric: sample[metric] for metric in sample["metrics"]}
    return {
        "task": task,
        "question": sample["arguments"][0][0],
        "answer": sample["target"],
        "prediction": answer,
        "verdict": " ".join(f"{metric}={value}" for metric, value in verdict.items()),
    }
