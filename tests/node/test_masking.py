"""No secret of an attempt is in what its workers say."""

from __future__ import annotations

import pytest

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import Failed, LogLine, Message, Progress, Report
from orchestrator.node.masking import masked

SECRETS = ("hf_token", "hf_token_longer", "short", "-----BEGIN KEY-----\nline two\n")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (LogLine(1, "uses hf_token_longer, hf_token"), LogLine(1, "uses ***, ***")),
        (LogLine(1, "short and sweet"), LogLine(1, "short and sweet")),
        (LogLine(1, "line two"), LogLine(1, "***")),
        (Report("r.md", "hf_token"), Report("r.md", "***")),
        (Progress(1, 2), Progress(1, 2)),
    ],
)
def test_a_secret_is_masked_in_whatever_text_a_worker_says(said: Message, shown: Message) -> None:
    assert masked(said, SECRETS) == shown
    assert masked(said, ()) == said


def test_a_secret_is_masked_in_what_a_failure_shows() -> None:
    failure = Failure(kind=FailureKind.DATA, evidence="401: hf_token", detail="at\nhf_token")
    told = masked(Failed(failure), SECRETS).failure
    assert (told.evidence, told.detail) == ("401: ***", "at\n***")
