"""A process of vLLM that ends costs only its own answer."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.jobs.formats import zoo
from tests.jobs.formats.vllm_judge import Vllm


def test_each_folder_is_asked_of_a_new_process_where_the_last_has_ended(tmp_path: Path) -> None:
    folder = zoo.save(zoo.small("llama"), tmp_path / "llama")
    with Vllm(tmp_path, 10.0, Path(sys.executable)) as vllm:  # here there is no vLLM
        answers = [vllm.answer(folder), vllm.answer(folder)]
    expected = "the process ended with 1: ModuleNotFoundError: No module named 'vllm'"
    assert answers == [{"refused": expected}] * 2
