"""What is right as mathematics: math-verify itself, in this process, is the judge."""

from __future__ import annotations

import threading

from math_verify import parse, verify

from jobs.evaluation.scorers import scores

CASES = [
    ("1/2", ["0.5", r"so it is $\frac{1}{2}$", "0.51", ""]),
    ("$x^2 + 2x + 1$", ["$(x+1)^2$", "$x^2+1$", "no idea", "$2x + x^2 + 1$"]),
    ("12", [r"\boxed{12}", "The answer is 12.", "13", "12 or 13"]),
]


def test_answers_that_are_equal_as_mathematics_are_right_in_any_thread() -> None:
    items = [{"answer": right} for right, _ in CASES]
    answers = [texts for _, texts in CASES]
    found: list[list[list[float]]] = []
    thread = threading.Thread(
        target=lambda: found.append(scores("math_verify", "basic_arithmetic", items, answers))
    )
    thread.start()
    thread.join()
    assert found == [
        [[float(verify(parse(right), parse(text))) for text in texts] for right, texts in CASES]
    ]
    assert found[0][0] == [1.0, 1.0, 0.0, 0.0]
    assert found[0][1][:2] == [1.0, 0.0]


def test_the_tasks_own_scorer_judges_each_answer() -> None:
    items = [{"answer": "12", "question": "?", "metadata": {}}]
    assert scores("task", "basic_arithmetic", items, [["12", "13"]])[0][0] == 1.0
    assert scores("task", "basic_arithmetic", items, [["12", "13"]])[0][1] < 1.0
