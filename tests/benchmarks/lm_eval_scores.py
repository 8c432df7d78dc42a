"""lm-evaluation-harness by an endpoint and by its own backend: the same scores of the same model.

By hand, with `lm-eval[api,hf]` in an environment of its own:
`python -m tests.benchmarks.lm_eval_scores PATH/TO/lm_eval`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.engines.embedded import EmbeddedEngine
from orchestrator.serving.replica import replica
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama
from tests.serving.http_server import FixedClock, serving

QUESTIONS = 40
TOKENS = 12
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
metadata: {{version: 1}}
"""
CHOICES = 'doc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\n'
GENERATED = f"""doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: {TOKENS}, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def write_tasks(folder: Path, model: Path) -> None:
    """Write a task of choices, and one of answers of which every other is what the model says."""
    questions = [f"{n} + {n * 7 % 13} = " for n in range(QUESTIONS)]
    choices = [
        {
            "question": question,
            "choices": [str(n * 3 % 17), str(n + n * 7 % 13), "none of these", "é€"],
            "answer": n % 4,
        }
        for n, question in enumerate(questions)
    ]
    for chat in (False, True):
        answers = [
            {"question": question, "answer": said(model, question, chat=chat) if n % 2 else "no"}
            for n, question in enumerate(questions)
        ]
        write_task(folder, "said_in_chats" if chat else "said", "generate_until", answers)
    write_task(folder, "chosen", "multiple_choice", choices)


def write_task(folder: Path, name: str, kind: str, rows: list[dict[str, Any]]) -> None:
    """Write one task."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rest = CHOICES if kind == "multiple_choice" else GENERATED
    text = TASK.format(name=name, data=data, kind=kind)
    (folder / f"{name}.yaml").write_text(text + rest)


def said(folder: Path, question: str, *, chat: bool) -> str:
    """Return what the model in `folder` says, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": question}]
    prompt = (
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if chat
        else question
    )
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        answer = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)
    text: str = tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
    return text.split("\n\n", maxsplit=1)[0]


def started(
    command: str, folder: Path, tasks: str, kind: str, *more: str
) -> subprocess.Popen[bytes]:
    """Start lm-eval; it writes what it finds below `folder`."""
    out = folder / kind / tasks
    asked = [command, "--model", kind, "--tasks", tasks, "--include_path", str(folder)]
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out / "cache")}
    return subprocess.Popen(
        [*asked, *more, "--output_path", str(out), "--log_samples"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, **quiet, "TOKENIZERS_PARALLELISM": "false"},  # noqa: TID251 - a tool's
    )


def samples(folder: Path, kind: str, tasks: str, task: str) -> list[dict[str, Any]]:
    """Return what lm-eval wrote of each question of a task, in their order."""
    (written,) = (folder / kind / tasks).rglob(f"samples_{task}_*.jsonl")
    return sorted(map(json.loads, written.read_text().splitlines()), key=lambda row: row["doc_id"])


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lm_eval", nargs="?", default="lm_eval")
    command = parser.parse_args().lm_eval
    head = ["task", "by", "questions", "score", "score of hf", "equal", "log-probabilities apart"]
    print(" | ".join(head))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_tiny_llama(folder / "model")
        write_tasks(folder, model)
        engine = EmbeddedEngine(model, HARDWARE, threads=1, version="v1")
        with serving(replica(engine, "tiny", FixedClock())) as url:
            own = f"pretrained={model},dtype=float32,max_length=512"
            shared = f"model=tiny,tokenizer_backend=huggingface,tokenizer={model},max_length=512"
            completions = f"{shared},base_url={url}/v1/completions"
            chats = f"model=tiny,base_url={url}/v1/chat/completions"
            for tasks, kind, ours, more in (
                ("chosen,said", "local-completions", completions, ()),
                ("said_in_chats", "local-chat-completions", chats, ("--apply_chat_template",)),
            ):
                begun = [
                    started(command, folder, tasks, kind, "--model_args", ours, *more),
                    started(
                        command, folder, tasks, "hf", "--model_args", own, "--device", "cpu", *more
                    ),
                ]
                if any(process.wait() for process in begun):
                    raise SystemExit("lm-eval failed; it says above why")
                for task in tasks.split(","):
                    both = [samples(folder, by, tasks, task) for by in (kind, "hf")]
                    print(" | ".join([task, kind, *compared(*both)]), flush=True)
        engine.close()


def compared(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
    """Return the number of questions, both scores, what is equal, and the largest difference."""
    metric = "acc" if "acc" in ours[0] else "exact_match"
    mean = [sum(row[metric] for row in side) / len(side) for side in (ours, theirs)]
    pairs = [
        (mine, other)
        for row, his in zip(ours, theirs, strict=True)
        for mine, other in zip(row["filtered_resps"], his["filtered_resps"], strict=True)
    ]
    if metric == "acc":
        apart = max(abs(float(mine[0]) - float(other[0])) for mine, other in pairs)
        equal = sum(str(mine[1]) == str(other[1]) for mine, other in pairs)
    else:
        apart, equal = 0.0, sum(mine == other for mine, other in pairs)
    shown = [f"{value:.4f}" for value in mean]
    return [str(len(ours)), *shown, f"{equal} of {len(pairs)}", f"{apart:.1e}"]


if __name__ == "__main__":
    main()
