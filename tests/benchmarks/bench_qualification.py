"""`qualify POOL --quick`, as a user types it, of each pool of the fleet `rehearsal`.

The services are up. All three stages run: what the host does, what each chip does, what they do
together; most of the time is that of starting their processes.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.benchmarks.table import Row
from tests.conftest import CONFIGURED, Workplace
from tests.ports import free_port

POOLS = ("nvidia", "ascend", "cambricon", "moore")
ROOT = Path(__file__).parents[2]


def rows() -> list[Row]:
    """Qualify each pool once."""
    kept = {name: value for name, value in os.environ.items() if name not in CONFIGURED}  # noqa: TID251 - a test's own
    with TemporaryDirectory() as folder:
        place = Workplace(Path(folder), {**kept, "PYTHONPATH": str(ROOT)})
        words = ("fleet=rehearsal", f"gateway.port={free_port()}")
        try:
            _done(place, "up", *words)
            return [_timed(place, pool, *words) for pool in POOLS]
        finally:
            place.run("down", "--yes")


def _timed(place: Workplace, pool: str, *words: str) -> Row:
    began = perf_counter()
    _done(place, "qualify", pool, "--quick", *words)
    return Row(name=f"qualify {pool} --quick", ours=perf_counter() - began, goal="ours < 60")


def _done(place: Workplace, *words: str) -> None:
    done = place.run(*words, seconds=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
