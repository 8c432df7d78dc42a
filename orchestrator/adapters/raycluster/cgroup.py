"""How often the kernel has ended processes of this container for want of memory.

Its log may be out of reach there; this count is not. It says nothing of which process it was.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
_COUNTS = ("memory.events", "memory.oom_control")  # of the second version, and of the first
_COUNTED = "oom_kill "


def oom_kills(root: Path = _ROOT, groups: Path = _GROUPS) -> int | None:
    """Return the count; `None` where nothing tells it.

    `root` is where the groups of processes are shown, `groups` the file that says which are ours.
    """
    for folder in _folders(root, groups):
        for name in _COUNTS:
            with suppress(OSError, ValueError):
                lines = (folder / name).read_text(encoding="utf-8").splitlines()
                counts = [line.removeprefix(_COUNTED) for line in lines if _COUNTED in line[:9]]
                if counts:
                    return int(counts[0])
    return None


def _folders(top: Path, groups: Path) -> list[Path]:
    """Return where this process's own group may be seen: by its path, or as the root."""
    folders: list[Path] = []
    with suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            root = top / "memory" if "memory" in controllers.split(",") else top
            if not controllers or root != top:
                folders.append(root / path.lstrip("/"))
    return [*folders, top, top / "memory"]
