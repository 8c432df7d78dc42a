"""Marks tests that need an engine which is not in this environment."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

HERE = importlib.util.find_spec("vllm") is not None


def with_vllm(test: Any) -> Any:
    """Mark a test that needs vLLM, whose own deprecations are not ours."""
    for mark in (
        pytest.mark.vllm,
        pytest.mark.skipif(not HERE, reason="vLLM is not in this environment: make vllm"),
        pytest.mark.timeout(600),
        pytest.mark.filterwarnings("ignore"),
    ):
        test = mark(test)
    return test
