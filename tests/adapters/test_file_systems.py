"""SQLite is kept off file systems that several hosts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase, file_systems
from orchestrator.adapters.database.file_systems import network_file_system
from orchestrator.core.errors import StoreError

# As Linux writes them: a folder with a space in its name, and one that is mounted over.
MOUNTS = r"""
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:39 / /users rw shared:2 - nfs4 server:/users rw,vers=4.2
41 40 0:40 / /users/local rw - xfs /dev/sdb rw
42 22 0:41 / /mnt/a\040b rw - lustre mds@tcp:/scratch rw
43 22 0:42 / /mnt/win rw - cifs //server/share rw
44 22 0:43 / /mnt/ssh rw - fuse.sshfs me@host:/ rw
45 22 0:44 / /merged rw - fuse.fuse-overlayfs fuse-overlayfs rw
46 22 0:45 / /twice rw - nfs server:/x rw
47 22 0:46 / /twice rw - tmpfs tmpfs rw
48 22 0:47 / /mnt/9 rw - 9p share rw,trans=virtio
""".strip()


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    return file


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", None),
        ("/users/ann/.orchestrator", "nfs4"),
        ("/users/local/x", None),
        ("/usersx", None),
        ("/mnt/a b/c", "lustre"),
        ("/mnt/win", "cifs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/merged/x", None),
        ("/twice/x", None),
        ("/mnt/9/x", "9p"),
    ],
)
def test_what_a_folder_is_on_is_what_was_mounted_last_and_nearest(
    mounts: Path, path: str, kind: str | None
) -> None:
    assert network_file_system(Path(path), mounts) == kind


def test_this_machine_is_read_as_it_is_and_one_without_such_a_list_is_local(
    tmp_path: Path,
) -> None:
    assert network_file_system(tmp_path) is None
    assert network_file_system(tmp_path, tmp_path / "nowhere") is None


def test_a_file_there_is_refused_in_a_line_that_says_what_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(f"1 0 0:1 / / rw - ext4 /dev/x rw\n2 1 0:2 / {tmp_path} rw - nfs4 s:/x rw\n")
    monkeypatch.setattr(file_systems, "MOUNTS", file)
    with pytest.raises(StoreError, match=r"\(nfs4\), where SQLite loses data; .*postgresql://"):
        SqlDatabase(tmp_path / "home" / "events.db")
    assert not (tmp_path / "home").exists()
