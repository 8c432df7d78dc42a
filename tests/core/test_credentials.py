"""Credentials are known by one list of names, in any case, and by what a value holds."""

from __future__ import annotations

import pytest

from orchestrator.core.address_passwords import is_credential
from tests.credentials import CREDENTIALS

OTHERS = {
    "PATH": "/usr/bin:/bin",
    "PWD": "/work",
    "TOKENIZERS_PARALLELISM": "1",
    "VLLM_MAX_TOKENS": "8",
    "RAY_AUTH_MODE": "token",
    "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128,expandable_segments:True",
    "MLFLOW_TRACKING_URI": "https://host:5000/a@b",
    "LS_COLORS": "rs=0:di=01;34:*.tar=01;31",
    "NCCL_SOCKET_IFNAME": "=eth0",
    "KEYBOARD": "us",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9000/?versions=1",
}


@pytest.mark.parametrize(("name", "value"), CREDENTIALS.items())
def test_a_credential_is_seen(name: str, value: str) -> None:
    assert is_credential(name, value)


@pytest.mark.parametrize(("name", "value"), OTHERS.items())
def test_what_is_none_is_not_taken_for_one(name: str, value: str) -> None:
    assert not is_credential(name, value)
