"""The documented errors."""

from __future__ import annotations

import re

from orchestrator import wiring
from orchestrator.core.failures.exceptions import Raised, judge
from orchestrator.core.failures.signatures import Matcher
from orchestrator.emulation.catalogue import catalogue


def test_every_error_says_where_it_is_documented() -> None:
    assert all(signature.source for signature in catalogue().values())
    assert {"hccl_timeout", "hccl_setup", "hbm_ecc", "npu_oom", "aicore"} <= catalogue().keys()


def test_every_error_is_filled_in_for_its_place() -> None:
    for name, signature in catalogue().items():
        text = signature.fill(time="2026-01-02-03:04:05", pid=77, device=3, rank=1)
        assert not re.search(r"\{\w+\}", text), name
        assert text == text.strip()


def test_ascend_errors_have_the_form_of_the_makers_log() -> None:
    form = r"\[ERROR\] 2026-01-02-03:04:05 \(PID:77, Device:3, RankID:1\) ERR\d{5} \w+"
    for name, signature in catalogue().items():
        text = signature.fill(time="2026-01-02-03:04:05", pid=77, device=3, rank=1)
        assert "[ERROR]" not in text or re.search(form, text), name


def test_the_interconnect_timeout_tells_its_code() -> None:
    text = catalogue()["hccl_timeout"].fill(time="t", pid=1, device=0, rank=1)
    assert "EI0002: " in text
    assert "Notify register times out" in text


KINDS = {
    "aicore": "software",
    "aicore_overflow": "numerical_divergence",
    "aicpu": "software",
    "cuda_degraded": "device_degraded",
    "cuda_ecc": "device_lost",
    "cuda_kernel": "set_up",
    "cuda_lost": "device_lost",
    "cuda_oom": "out_of_memory",
    "hbm_ecc": "device_lost",
    "hccl_retry": "interconnect",
    "hccl_setup": "interconnect",
    "hccl_timeout": "interconnect",
    "hccp": "software",
    "hccs_link": "interconnect",
    "nccl_watchdog": "interconnect",
    "npu_oom": "out_of_memory",
    "npu_operator": "unsupported_operator",
    "nvlink": "interconnect",
    "suspect_remote": "interconnect",
    "uce": "device_lost",
}


def test_every_error_is_told_apart_by_the_shipped_signatures() -> None:
    signatures = tuple(wiring.settings(["pipeline=r2"]).signatures.values())
    found = {}
    for name, signature in catalogue().items():
        text = signature.fill(time="2026-01-02-03:04:05", pid=77, device=3, rank=1)
        raised = Raised(("RuntimeError", "Exception"), text)
        found[name] = str(judge((raised,), Matcher(signatures)).kind)
    assert found == KINDS
