"""Whether a folder is on this machine: SQLite's locks and journal need that.

Over a network file system two hosts don't see each other's locks, nor the memory that writers in
WAL mode share; what was committed is lost, sooner or later.
"""

from __future__ import annotations

from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
OVER_THE_NETWORK = frozenset(
    {
        *("9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs"),
        *("gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2"),
        *("smb3", "smbfs", "virtiofs", "wekafs"),
    }
)
FUSE = "fuse."
# What FUSE has on the disks of this machine.
LOCAL_FUSE = frozenset({"fuse-overlayfs", "mergerfs", "gocryptfs", "encfs", "cryfs", "bindfs"})


def network_file_system(path: Path, mounts: Path | None = None) -> str | None:
    """Return the kind of network file system that `path` is on; `None` where it is on none.

    What can't be looked up is taken for local.
    """
    mounts = mounts or MOUNTS
    if not mounts.exists():
        return None
    place = path.resolve()
    kinds = dict(map(_mount, mounts.read_text("utf-8", "surrogateescape").splitlines()))
    (kind,) = [kinds[part] for part in (place, *place.parents) if part in kinds][:1] or ("",)
    if kind.startswith(FUSE):
        return None if kind.removeprefix(FUSE) in LOCAL_FUSE else kind
    return kind if kind in OVER_THE_NETWORK else None


def _mount(line: str) -> tuple[Path, str]:
    """Return the folder and the kind of a line; of those on one folder the last one counts."""
    before, _, after = line.partition(" - ")
    escaped = before.split(" ")[4].encode("utf-8", "surrogateescape")
    folder = escaped.decode("unicode_escape").encode("latin-1")
    return Path(folder.decode("utf-8", "surrogateescape")), after.split(" ")[0]
