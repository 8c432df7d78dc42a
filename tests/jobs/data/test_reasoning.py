from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.data.reasoning import scorer

ROOT = Path(__file__).parents[3]
# A finder that hides pycosat, as if it had never been installed; then what a job does.
HIDDEN = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "pycosat":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
class Gone:
    @staticmethod
    def find_spec(name, package=None):
        return None if name == "pycosat" else real(name, package)
import importlib.util
real, importlib.util.find_spec = importlib.util.find_spec, Gone.find_spec
sys.meta_path.insert(0, Hide())
from jobs.data.reasoning import gym, scorer
entry = gym().create_dataset("chain_sum", seed=1, size=1)[0]
assert scorer("chain_sum")(entry["answer"], entry) == 1.0
try:
    sys.modules["pycosat"].solve
except ImportError as error:
    print(error)
"""


def test_arithmetic_works_without_pycosat_and_who_needs_it_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HIDDEN],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "pycosat is not installed" in done.stdout


@pytest.mark.parametrize(("answer", "right"), [("42", True), ("41", False), ("", False)])
def test_answers_are_scored_by_reasoning_gym_itself(answer: str, right: bool) -> None:  # noqa: FBT001 - a table
    entry = {"question": "What is 40 + 2?", "answer": "42", "metadata": {}}

    assert (scorer("basic_arithmetic")(answer, entry) == 1.0) is right
