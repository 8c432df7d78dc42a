"""A proxy before an S3 API, which refuses while a file says so: `503 SlowDown`.

python -m tests.hosts.refusing_s3 PORT URL FILE
"""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

from tests.s3 import S3Server, faulty

SECONDS_BETWEEN_LOOKS = 0.1


def refusal(file: Path) -> tuple[int, str] | None:
    """Return the status and the code of S3 that a file says; `None` where there is none."""
    words = file.read_text().split() if file.exists() else []
    return (int(words[0]), words[1]) if words else None


def main() -> None:
    """Forward until the process is ended."""
    port, url, file = sys.argv[1:]
    with faulty(S3Server(url), ("0.0.0.0", int(port))) as proxy:  # noqa: S104 - of its network
        while True:
            proxy.refusal = refusal(Path(file))
            Event().wait(SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    main()
