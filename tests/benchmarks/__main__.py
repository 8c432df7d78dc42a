"""Run all benchmarks, or those named: `python -m tests.benchmarks [plan cli ...]`.

A benchmark is a file `bench_NAME.py` here with `def rows() -> list[Row]`. Nothing fails when a
goal is missed: a shared machine is no judge. One that breaks fails the command, at the end.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from tests.benchmarks.table import Row, render

FOLDER = Path(__file__).parent
PREFIX = "bench_"


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(path.stem.removeprefix(PREFIX) for path in FOLDER.glob(f"{PREFIX}*.py"))


def main(wanted: list[str]) -> int:
    """Run the benchmarks `wanted`, all where none is, and print one table."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    broken: list[str] = []
    for name in wanted or names():
        print(f"running {name} ...", file=sys.stderr)
        try:
            rows += importlib.import_module(f"tests.benchmarks.{PREFIX}{name}").rows()
        except Exception:  # noqa: BLE001 - the others still run
            traceback.print_exc()
            broken.append(name)
    print(render(rows))
    if broken:
        print(f"broke: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
