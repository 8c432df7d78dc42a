"""Two workers of a gang over gloo, forked after the imports, which take longest.

`python -m tests.jobs.qualification.forked_gang SPEC`: the spec is that of `local_context.main`,
without a rank.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import torch
import torch._dynamo
import transformers.models.llama.modeling_llama  # noqa: F401

import jobs.qualification.gang  # noqa: F401
from tests.jobs import local_context

WORKERS = 2


def main(spec: str) -> int:
    """Run the job in both; return how many failed."""
    torch.set_num_threads(1)
    children = [_fork(spec, rank) for rank in range(WORKERS)]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _fork(spec: str, rank: int) -> int:
    child = os.fork()
    if child:
        return child
    failed = 1
    try:
        local_context.main(json.dumps({**json.loads(spec), "rank": rank, "world_size": WORKERS}))
        failed = 0
    except BaseException:  # noqa: BLE001 - the process ends here: nobody else would tell
        traceback.print_exc()
    finally:
        os._exit(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
