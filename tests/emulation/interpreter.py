"""An interpreter that has a torch device `npu`: the name is given once a process, so not to ours.

Run as a script it reads snippets, one JSON text a line, and answers each with a line: the value of
`result`, or what was raised.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Interpreter:
    """The other process, seen from the tests."""

    def __init__(self, setup: str) -> None:
        """Start it, and run `setup`, whose names every snippet sees."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(setup)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, code: str) -> dict[str, Any]:
        """Run a snippet; return `result` or `error` of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(code), file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return found

    def __call__(self, code: str) -> Any:
        """Run a snippet that works; return what it called `result`."""
        found = self.answer(code)
        assert "error" not in found, found["error"]
        return found["result"]

    def error(self, code: str) -> str:
        """Run a snippet that raises; return `Type: message`."""
        return str(self.answer(code)["error"])

    def close(self) -> None:
        """End the process."""
        self._process.communicate("", timeout=30)


def main(setup: str) -> None:
    """Serve snippets until there are none."""
    answers, sys.stdout = sys.stdout, sys.stderr
    names: dict[str, Any] = {}
    exec(setup, names)  # noqa: S102 - the tests' own text
    for line in sys.stdin:
        scope = dict(names)
        try:
            exec(json.loads(line), scope)  # noqa: S102 - as above
            told = {"result": scope.get("result")}
        except Exception as error:  # noqa: BLE001 - it is the answer
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(json.loads(sys.argv[1]))
