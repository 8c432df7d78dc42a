"""Workers that qualify an emulated Ascend together.

`python -m tests.jobs.qualification.emulated_gang SPEC`: the spec has `folder`, `rendezvous`,
`workers`, the job's `params` and the `emulation` of the pool. Each line that a worker logs is
printed, and how it ended where it failed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.core.spec.emulation import Emulation
from orchestrator.messages import LogLine, Message
from tests.jobs import emulated_attempt


def main(spec: dict[str, Any]) -> int:
    """Run the job in all; return how many failed."""
    request = emulated_attempt.request_on_ascend(
        "gang",
        spec["workers"],
        TypeAdapter(Emulation).validate_python(spec["emulation"]),
        job="jobs.qualification.all_chips.qualify_gang",
        params=spec["params"],
        storage=Path(spec["folder"]).as_uri(),
    )
    return emulated_attempt.run(request, spec["rendezvous"], _logged)


def _logged(_rank: int, message: Message) -> str | None:
    return message.text if isinstance(message, LogLine) else None


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
