"""A folder that hosts share by NFS: what one has written the others see at their next look.

The client of NFS is played: a name that it has looked up in vain is absent to it, until the folder
above is opened anew, as the one of Linux does between `acdirmin` and `acdirmax` seconds.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.errors import DamagedError

MARK = "checkpoints/r/train/claims/0003-0001-anew"


@dataclass
class NfsClient:
    """What a host believes of the folder `root` on a server."""

    root: Path
    absent: set[Path] = field(default_factory=set)
    active: bool = True

    def look_up(self, path: Path) -> None:
        for part in [path, *path.parents][::-1]:
            if not part.is_relative_to(self.root):
                continue
            if part not in self.absent and os.path.lexists(part):
                continue
            self.absent.add(part)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def open_folder(self, path: Path) -> None:
        self.look_up(path)
        self.absent = {name for name in self.absent if name.parent != path}

    @contextmanager
    def host(self) -> Iterator[None]:
        """Have this process be that host, for a while."""
        with pytest.MonkeyPatch.context() as patch:
            for module, name, before in (
                (os, "stat", self.look_up),
                (os, "lstat", self.look_up),
                (os, "open", self.look_up),
                (io, "open", self.look_up),
                (os, "listdir", self.open_folder),
                (os, "scandir", self.open_folder),
            ):
                patch.setattr(module, name, self._after(before, getattr(module, name)))
            yield

    def _after(
        self, before: Callable[[Path], None], call: Callable[..., object]
    ) -> Callable[..., object]:
        def asks(path: object, *given: object, **named: object) -> object:
            if isinstance(path, str | Path) and self.active:
                self.active = False  # what the server has is looked up by the same calls
                try:
                    before(Path(path))
                finally:
                    self.active = True
            return call(path, *given, **named)

        return asks


@pytest.fixture
def client(root: Path) -> NfsClient:
    root.mkdir()
    return NfsClient(root)


def test_the_client_that_is_played_caches_what_is_absent(client: NfsClient, root: Path) -> None:
    with client.host():
        assert not (root / "a").exists()
    (root / "a").write_text("x")
    with client.host():
        assert not (root / "a").exists()
        assert list(root.iterdir()) == [root / "a"]
        assert (root / "a").read_text() == "x"


@pytest.mark.parametrize("there", ["", "checkpoints/r/train", "checkpoints/r/train/claims"])
def test_a_mark_is_read_at_the_next_look_after_it_was_written(
    local: FsspecArtifactStore, client: NfsClient, root: Path, there: str
) -> None:
    (root / there).mkdir(parents=True, exist_ok=True)
    with client.host():
        for _ in range(2):
            assert local.marked(MARK) is None
    local.mark(MARK, "x")
    with client.host():
        assert local.marked(MARK) == "x"


@pytest.mark.parametrize("there", ["", "checkpoints/r/train"])
def test_a_folder_is_listed_at_the_next_look_after_it_was_made(
    local: FsspecArtifactStore, client: NfsClient, root: Path, there: str
) -> None:
    (root / there).mkdir(parents=True, exist_ok=True)
    with client.host():
        assert local.names(MARK.rpartition("/")[0]) == []
    local.mark(MARK, "x")
    with client.host():
        assert local.names(MARK.rpartition("/")[0]) == [MARK.rpartition("/")[2]]


def test_an_artifact_is_there_at_the_next_look_after_it_was_sealed(
    local: FsspecArtifactStore, client: NfsClient
) -> None:
    name = "checkpoints/r/train/step-1"
    with client.host():
        with pytest.raises(DamagedError):
            local.manifest(name)
        assert local.weight(name) == 0
    folder = local.scratch(name)
    (folder / "w").write_text("x")
    ref = local.commit(folder, name, {})
    with client.host():
        assert local.manifest(name).digest == ref.digest
        assert local.load(name)[0].joinpath("w").read_text() == "x"
