"""Prints by how many bytes the memory of this process grows while it exports a folder."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from transformers import AutoConfig

from jobs.formats.choice import choose
from jobs.formats.conversion import Conversion
from jobs.formats.folder import Folder
from jobs.formats.schemes import scheme_for

KIB = 1024


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


def main(source: Path, target: Path) -> int:
    """Export; return the growth."""
    folder = Folder(source)
    choice = choose(AutoConfig.from_pretrained(source), folder.specs, scheme_for("bf16", "vllm"))
    before = peak()
    Conversion(source=folder, form="bf16", choice=choice, threads=2).run(target)
    return peak() - before


if __name__ == "__main__":
    sys.stdout.write(str(main(*map(Path, sys.argv[1:]))))
