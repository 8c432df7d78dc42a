"""The demo: launch the pipeline, ask what it serves, and say where to look. Run by `make demo`.

It uses the command as a user would. Training begins on pool `ascend`, whose emulated link breaks
at a step, and goes on on pool `nvidia`. The questions come from the test split that the run itself
held out, and reasoning-gym scores the answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from openai import OpenAI
from rich.console import Console

from jobs.data.dataset import read_examples, read_facts
from jobs.data.reasoning import scorer
from orchestrator import wiring
from orchestrator.display import tables
from orchestrator.service import runs

QUESTIONS = 100
SHOWN = 5
ASKED_AT_ONCE = 8
OVERRIDES = ("pipeline=r2", "experiment=ascend_breaks")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *words]


def newest_run() -> dict[str, Any]:
    listed = subprocess.run(command("status", "--json"), check=True, stdout=subprocess.PIPE)
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found[0]


def folder_of(run: dict[str, Any], stage: str) -> Path:
    uri = next(item["artifact"] for item in run["stages"] if item["stage"] == stage)
    return Path(urlparse(uri).path)


def story(run: dict[str, Any]) -> str:
    """Return what happened to the training stage, told from the database."""
    store = wiring.database(wiring.home())
    header = store.header(run["run"])
    stage = runs.load(store, header).stages["pretrain"]
    lines = []
    for attempt in stage.attempts:
        began = f"from step {attempt.resumed}" if attempt.resumed else "from the beginning"
        if attempt.failure:
            failure = attempt.failure
            ended = f"failed at step {failure.step}: {failure.kind}, {failure.evidence}"
        else:
            ended = str(attempt.state)
        lines.append(f"Attempt {attempt.number} on {attempt.pool}, {began}, {ended}")
    lines.append(f"Steps done twice: {stage.lost_steps}")
    return "\n".join(lines)


def answers(run: dict[str, Any], questions: list[str]) -> list[str]:
    """Ask the endpoint of the run through the official client, several questions at once."""
    name = run["endpoints"][0]
    gateway = wiring.gateway_url(wiring.home())
    client = OpenAI(base_url=f"{gateway}/{name}/v1", api_key="none")

    def ask(question: str) -> str:
        message = {"role": "user", "content": question}
        reply = client.chat.completions.create(
            model=name, messages=[message], temperature=0, max_tokens=32
        )
        return (reply.choices[0].message.content or "").strip()

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(ask, questions))


def main() -> int:
    launched = subprocess.run(command("launch", *OVERRIDES), check=False).returncode
    if launched:
        return launched
    run, out = newest_run(), Console(highlight=False)
    out.print(f"\n{story(run)}", markup=False)
    data = folder_of(run, "data")
    facts, examples = read_facts(data), read_examples(data, "test")[:QUESTIONS]
    said = answers(run, [item["question"] for item in examples])
    score = scorer(str(facts.task))
    points = [score(answer, item) for answer, item in zip(said, examples, strict=True)]
    accuracy = sum(point == 1.0 for point in points) / len(points)
    rows = zip(examples, said, points, strict=True)
    shown = [
        (item["question"].strip(), answer, item["answer"], "✔" if point == 1.0 else "✘")
        for item, answer, point in list(rows)[:SHOWN]
    ]
    out.print("\nHeld-out questions, asked of the served model\n")
    out.print(tables.table(("QUESTION", "ANSWER", "RIGHT ANSWER", ""), shown))
    chance = f"; the commonest answer would reach {facts.chance:.1%}" if facts.chance else ""
    out.print(f"\nAccuracy on {len(points)} held-out questions: {accuracy:.1%}{chance}")
    out.print("Every pool was emulated on this machine: the speed says nothing of the chips.")
    subprocess.run(command("ui", "--no-browser"), check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
