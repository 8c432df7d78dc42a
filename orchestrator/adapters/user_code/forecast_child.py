"""Has jobs forecast, in a process of their own: questions as JSON come in, answers go out."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any


def main() -> None:
    """Answer all questions; the answers are the last line."""
    questions = json.load(sys.stdin)
    sys.path[:0] = questions["code"]
    answers = [_answer(**question) for question in questions["asked"]]
    sys.stdout.write(f"\n{json.dumps(answers)}\n")


def _answer(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job says, why it refuses, or what has kept it from saying anything."""
    module, _, name = function.rpartition(".")
    try:
        forecast = getattr(importlib.import_module(module), name)
        return {
            "lines": [str(line) for line in forecast(arguments["params"], **_beside(arguments))]
        }
    except ValueError as error:
        return {"refused": " ".join(str(error).split())}
    except Exception as error:  # noqa: BLE001 - border: user code; other questions have answers
        return {"unknown": " ".join(f"{type(error).__name__}: {error}".split())}


def _beside(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name != "params"}


if __name__ == "__main__":
    main()
