"""Workers of a gang over gloo, forked after the imports, which take longest.

`python -m tests.jobs.qualification.forked_gang SPEC`: the spec is that of `local_context.main`,
without a rank, and may have `workers`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import torch
import torch._dynamo
import transformers.models.llama.modeling_llama  # noqa: F401

import jobs.qualification.gang  # noqa: F401
from jobs.qualification import report
from jobs.qualification.bench import Bench
from jobs.qualification.links import check_links
from orchestrator.job import JobContext, Metrics
from tests.jobs import local_context

WORKERS = 2


def links(ctx: JobContext, *, names: list[str]) -> Metrics:
    """Check the links alone, of workers on nodes of these names."""
    bench = Bench(ctx, quick=True)
    check_links(bench, names)
    return report.finish(bench)


def main(spec: str) -> int:
    """Run the job in both; return how many failed."""
    torch.set_num_threads(1)
    told = json.loads(spec)
    told["world_size"] = told.pop("workers", WORKERS)
    children = [_fork(told, rank) for rank in range(told["world_size"])]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _fork(spec: dict[str, Any], rank: int) -> int:
    child = os.fork()
    if child:
        return child
    failed = 1
    try:
        local_context.main(json.dumps({**spec, "rank": rank}))
        failed = 0
    except BaseException:  # noqa: BLE001 - the process ends here: nobody else would tell
        traceback.print_exc()
    finally:
        os._exit(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
