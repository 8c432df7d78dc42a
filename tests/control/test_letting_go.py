"""What a job held is let go after its outcome is told."""

from __future__ import annotations

import sys

from orchestrator.messages import Failed
from tests.control.conftest import Bench


def test_a_failure_is_told_before_what_the_job_held_is_let_go(bench: Bench) -> None:
    """Links of a gang may wait for the others when they are let go."""
    bench.write("""
        let_go = []
        class Links:
            def __del__(self):
                let_go.append(self)
        def job(ctx):
            links = Links()
            raise RuntimeError("a peer is gone")
        """)
    batches = bench.stream(bench.request())
    [*_, told] = next(batches)
    assert isinstance(told, Failed)
    assert sys.modules[f"{bench.package}.jobs"].let_go == []
    assert list(batches) == []
