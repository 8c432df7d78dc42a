"""The checkpoints that a command writes: known by their names, adopted once they are whole.

A checkpoint is copied when it is whole, since the command may remove or overwrite its own, and is
then saved beside the training. One that is gone before it was copied is told and passed over.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from time import time

from orchestrator.job import JobContext

_STEP = "{step}"
_SETTLE = 5.0
# What frameworks write, by the name of the layout: where, and by what it is known to be whole.
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "huggingface": {"pattern": "checkpoint-{step}", "complete": "trainer_state.json"},
    "dcp": {"pattern": "step-{step}", "complete": ".metadata"},
    "megatron": {"pattern": "iter_{step}", "tracker": "latest_checkpointed_iteration.txt"},
    "verl": {"pattern": "global_step_{step}", "tracker": "latest_checkpointed_iteration.txt"},
}


class LayoutError(Exception):
    """What `checkpoints` says is no layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How checkpoints are named, and by what one is known to be whole.

    Attributes:
        pattern: Path of a checkpoint below `{checkpoints}`, a folder or a file, with `{step}`
            for the digits of its step.
        complete: A file in its folder that is written last.
        tracker: A file below `{checkpoints}` whose text is the step of the newest that is whole.
        settle: Seconds for which nothing of it may have changed, where neither of them is given.
    """

    pattern: str
    complete: str = ""
    tracker: str = ""
    settle: float = _SETTLE

    @classmethod
    def of(cls, said: Mapping[str, str | float] | None) -> Layout | None:
        """Return what a config says: fields of a layout, over those of the known one of `layout`.

        Raises:
            LayoutError: It says something else.
        """
        if said is None:
            return None
        given = dict(said)
        name = given.pop("layout", None)
        if name is not None and name not in _KNOWN:
            known = ", ".join(sorted(_KNOWN))
            raise LayoutError(f"checkpoints.layout {name!r} is not known; there are: {known}")
        merged = {**_KNOWN.get(str(name), {}), **given}
        unknown = sorted(merged.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise LayoutError(f"checkpoints.{unknown[0]} is not known; see `Layout`")
        pattern = str(merged.pop("pattern", ""))
        if pattern.count(_STEP) != 1 or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            how = "write a path below {checkpoints} with one {step}, as 'checkpoint-{step}'"
            raise LayoutError(f"checkpoints.pattern {pattern!r} names no checkpoints; {how}")
        settle = float(merged.pop("settle", _SETTLE))
        return cls(pattern=pattern, settle=settle, **{n: str(v) for n, v in merged.items()})


@dataclass(frozen=True, slots=True)
class _Found:
    step: int
    path: Path


class CheckpointFolder:
    """The folder `{checkpoints}` of a worker."""

    def __init__(self, folder: Path, layout: Layout | None, ctx: JobContext) -> None:
        """Make it; without a layout nothing in it is a checkpoint."""
        self._folder, self._layout, self._ctx = folder, layout, ctx
        self._last = -1
        self._copies = folder.parent / "adopted"
        folder.mkdir(parents=True)
        if layout:
            before, after = map(re.escape, layout.pattern.split(_STEP))
            self._pattern = re.compile(rf"{before}(\d+){after}")

    def restore(self) -> Path | None:
        """Put the checkpoint to go on from where the command had written it; return its path."""
        if self._layout is None:
            return None
        checkpoint = self._ctx.latest_checkpoint()
        if checkpoint is None:
            return None
        self._last = checkpoint.step
        for shard in checkpoint.shards:
            shutil.copytree(shard, self._folder, symlinks=True, dirs_exist_ok=True)
        return next((found.path for found in self._all() if found.step == self._last), None)

    def adopt(self, *, last: bool = False) -> None:
        """Save the newest that is whole and was not saved yet; the `last` one is waited for."""
        layout = self._layout
        if layout is None:
            return
        whole = (found for found in self._all() if found.step > self._last)
        newest = max(
            (f for f in whole if self._whole(f, layout, over=last)), key=_step, default=None
        )
        if newest is None:
            return
        copy = self._copied(newest, layout)
        self._last = newest.step
        if copy is None:
            self._ctx.log(f"checkpoint of step {newest.step} was gone before it was saved")
            return
        self._ctx.save_checkpoint(newest.step, lambda folder: _move(copy, folder))
        if last:
            self._ctx.saved_checkpoint(newest.step)

    def _all(self) -> Iterator[_Found]:
        assert self._layout is not None
        for path in self._folder.glob(self._layout.pattern.replace(_STEP, "*")):
            match = self._pattern.fullmatch(str(path.relative_to(self._folder)))
            if match:
                yield _Found(int(match[1]), path)

    def _whole(self, found: _Found, layout: Layout, *, over: bool) -> bool:
        if layout.complete:
            return (found.path / layout.complete).is_file()
        if layout.tracker:
            try:
                return int((self._folder / layout.tracker).read_text()) >= found.step
            except (OSError, ValueError):
                return False
        return over or time() - _changed(found.path) >= layout.settle

    def _copied(self, found: _Found, layout: Layout) -> Path | None:
        """Copy a checkpoint, and the file that tells of it; `None` where it goes meanwhile."""
        target = self._copies / str(found.step)
        target.mkdir(parents=True)
        try:
            for path in (found.path, *([self._folder / layout.tracker] if layout.tracker else ())):
                into = target / path.relative_to(self._folder)
                into.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
                else:
                    shutil.copy2(path, into)
        except (FileNotFoundError, shutil.Error):
            shutil.rmtree(target, ignore_errors=True)
            return None
        return target


def _step(found: _Found) -> int:
    return found.step


def _changed(path: Path) -> float:
    """Return when anything of a checkpoint was changed last."""
    files = (Path(at, name) for at, _, names in os.walk(path) for name in names)
    times = [_time(file) for file in (path, *files)]
    return max(times)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just gone
        return time()


def _move(copy: Path, folder: Path) -> None:
    """Fill the folder of a checkpoint with what was copied, which goes."""
    shutil.copytree(copy, folder, symlinks=True, dirs_exist_ok=True, copy_function=os.replace)
    shutil.rmtree(copy)
