"""The checkpoints that a command writes: known by their names, adopted once they are whole.

A checkpoint is copied when it is whole, since the command may remove or overwrite its own, and is
then saved beside the training. One that is gone before it was copied is told and passed over.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic, time  # noqa: TID251 - files have times of this clock

from orchestrator.job import JobContext, KnownFailureError

_STEP = "{step}"
_WRITTEN_BY = ".written_by"  # beside a checkpoint: how many processes the command had
_SHOWN = 5  # names that a line lists
_SETTLE = 5.0
_FOLLOW_SECONDS = 2.0  # between two looks of other workers at what rank 0 says
_LAST_FOLLOW_SECONDS = 0.5  # the same once the command has failed or was ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How checkpoints are named, and by what one is known to be whole.

    Attributes:
        pattern: Path of a checkpoint below `{checkpoints}`, a folder or a file, with `{step}`
            for the digits of its step.
        complete: A file in its folder that is written last.
        tracker: A file below `{checkpoints}` whose text is the step of the newest that is whole.
        settle: Seconds for which nothing of it may have changed, where neither of them is given.
        reshard: Whether another number of processes than had written it can go on from it.
    """

    pattern: str
    complete: str = ""
    tracker: str = ""
    settle: float = _SETTLE
    reshard: bool = True


@dataclass(frozen=True, slots=True)
class _Written:
    step: int
    path: Path


class CheckpointFolder:
    """The folder `{checkpoints}` of a worker."""

    def __init__(
        self, folder: Path, layout: Layout | None, ctx: JobContext, processes: int = 1
    ) -> None:
        """Make it; without a layout nothing in it is a checkpoint.

        A worker has so many `processes`.
        """
        self._folder, self._layout, self._ctx = folder, layout, ctx
        self._processes = processes * ctx.world_size
        self._last = -1
        self._seen = self._warned = False
        self._over = (
            False  # whether rank 0 has said that nothing follows: its word goes with the save
        )
        self._next_look = 0.0
        self._lived = 0.0  # when the command was last seen to run well
        self._copies = folder.parent / "adopted"
        folder.mkdir(parents=True)
        if layout:
            before, after = map(re.escape, layout.pattern.split(_STEP))
            self._pattern = re.compile(rf"{before}(\d+){after}")

    def restore(self) -> Path | None:
        """Put the checkpoint to go on from where the command had written it; return its path.

        Raises:
            KnownFailureError: It is of another number of processes, and can't be resharded.
        """
        if self._layout is None:
            return None
        checkpoint = self._ctx.latest_checkpoint()
        if checkpoint is None:
            return None
        self._last = checkpoint.step
        for shard in checkpoint.shards:
            shutil.copytree(shard, self._folder, symlinks=True, dirs_exist_ok=True)
        self._compare_size(self._layout)
        same = (written.path for written in self._all(self._layout) if written.step == self._last)
        return next(same, None)

    def _compare_size(self, layout: Layout) -> None:
        """Say that a checkpoint is of another number of processes; refuse it where it must be."""
        note = self._folder / _WRITTEN_BY
        if not note.is_file():
            return
        before = int(note.read_text())
        note.unlink()
        if before == self._processes:
            return
        what = f"the checkpoint of step {self._last} is of {before} processes"
        now = f"there are {self._processes} now"
        if not layout.reshard:
            hint = f"ask for {before}, or set checkpoints.reshard where the script can take it"
            raise KnownFailureError("set_up", f"{what}, and {now}; {hint}")
        if not self._ctx.rank:
            self._ctx.log(f"{what}; {now}")

    def written_while(self, lives: Callable[[], bool]) -> bool:
        """Return whether the command `lives`; what it leaves is judged by when it last did."""
        before = time()
        living = lives()
        if living:
            self._lived = before
        return living

    def adopt(self) -> None:
        """Save the newest that is whole and was not saved yet, if there is one.

        Rank 0 sees that it is whole, and says so to the others, whose parts are then whole, too.
        """
        if self._layout is None:
            return
        if self._ctx.rank:
            self._follow(self._layout, time())
            return
        newest = None if self._ctx.saving else self._newest(self._layout, time())
        if newest is not None:
            self._save(newest, self._layout, last=False)
        elif not self._seen and not self._warned:
            self._tell_strays(self._layout)

    def adopt_last(self) -> None:
        """Save the newest, once the command has ended, and wait until it is saved."""
        if self._layout is not None:
            self._adopt_last(self._layout)
            self._ctx.finish_saving()

    def adopt_rest(self, *, orderly: bool) -> None:
        """Save the newest that is whole of a command that has failed, or was ended, for a while.

        One that has ended in an `orderly` way, when it was asked to, has left nothing unfinished.
        """
        layout = self._layout
        if layout is None:
            return
        with self._ctx.saving_last() as seconds:
            at = math.inf if orderly else self._lived
            if self._ctx.rank:
                self._follow_rest(layout, at, seconds)
            elif newest := self._newest(layout, at):
                self._save(newest, layout, last=True, ended=True)
            else:
                self._tell_last()
            self._ctx.finish_saving()

    def _follow_rest(self, layout: Layout, at: float, seconds: float) -> None:
        """Save what rank 0 saves last; it may run on, and say nothing more."""
        until, self._next_look = monotonic() + seconds, 0.0
        pace = _LAST_FOLLOW_SECONDS
        while not self._follow(layout, at, pace, ended=True) and monotonic() < until:
            Event().wait(_LAST_FOLLOW_SECONDS)

    def _tell_strays(self, layout: Layout) -> None:
        """Say once that what is written looks like checkpoints, and fits the pattern nowhere."""
        numbered = (path for path in self._folder.iterdir() if re.search(r"\d", path.name))
        if any(time() - _changed(path) >= layout.settle for path in numbered):
            self._warned = True
            self._ctx.log(f"no checkpoint is saved: {self._strays(layout)}")

    def _strays(self, layout: Layout) -> str:
        names = sorted(path.name for path in self._folder.iterdir())
        shown = ", ".join(map(repr, names[:_SHOWN])) + ", ..." * (len(names) > _SHOWN)
        return f"nothing in {{checkpoints}} fits {layout.pattern!r}, but there is {shown}"

    def explain(self, *, failed: bool) -> None:
        """Say why no checkpoint of a command that has ended was saved, if that is so.

        Of one that has `failed` it says nothing where it has written nothing.
        """
        layout = self._layout
        if layout is None or self._ctx.rank or self._warned or self._last >= 0:
            return
        parts = list(self._all(layout))
        if parts:
            newest = max(parts, key=lambda written: written.step)
            why = f"{newest.path.name!r} is not whole: {self._lacks(newest, layout)}"
        elif any(self._folder.iterdir()):
            why = self._strays(layout)
        elif failed:
            return
        else:
            why = "the command has written nothing into {checkpoints}"
        self._ctx.log(f"no checkpoint was saved: {why}")

    def _lacks(self, written: _Written, layout: Layout) -> str:
        if layout.complete:
            return f"it has no {layout.complete!r}"
        if layout.tracker:
            return f"{layout.tracker!r} does not name step {written.step}, or a later one"
        return f"it had changed within the last {layout.settle:g} s"

    def _adopt_last(self, layout: Layout) -> None:
        if self._ctx.rank:
            with self._ctx.busy("waiting for the last checkpoint"):
                while not self._follow(layout, math.inf):
                    Event().wait(_FOLLOW_SECONDS)
            return
        newest = self._newest(layout, math.inf)
        if newest is not None:
            self._save(newest, layout, last=True)
        else:
            self._tell_last()

    def _tell_last(self) -> None:
        """Tell the other workers that nothing more is saved.

        Word of a checkpoint goes once that is saved: this must come after it.
        """
        self._ctx.finish_saving()
        if self._ctx.world_size > 1:
            self._ctx.announce_checkpoint(max(self._last, 0), last=True)

    def _newest(self, layout: Layout, at: float) -> _Written | None:
        new = (written for written in self._all(layout) if written.step > self._last)
        whole = (written for written in new if self._whole(written, layout, at))
        return max(whole, key=lambda written: written.step, default=None)

    def _follow(
        self, layout: Layout, at: float, pace: float = _FOLLOW_SECONDS, *, ended: bool = False
    ) -> bool:
        """Save what rank 0 saves; return whether nothing follows."""
        now = monotonic()
        if self._over or now < self._next_look:
            return self._over
        self._next_look = now + pace
        if self._ctx.saving:
            return False
        step, last = self._ctx.announced_checkpoint(self._last) or (-1, False)
        if step > self._last:
            nothing = _Written(step, self._folder / layout.pattern.replace(_STEP, str(step)))
            parts = (written for written in self._all(layout) if written.step == step)
            mine = next(parts, nothing)
            if not self._settled(mine, layout, at):
                return False
            self._save(mine, layout, last=last, ended=ended)
        self._over = last
        return last

    def _settled(self, part: _Written, layout: Layout, at: float) -> bool:
        """Whether this worker's part is whole, where nothing but its age says so."""
        signed = layout.complete or layout.tracker or not part.path.exists()
        return bool(signed) or self._whole(part, layout, at)

    def _save(self, written: _Written, layout: Layout, *, last: bool, ended: bool = False) -> None:
        was_there = written.path.exists()
        copy = self._copied(written, layout, ended=ended)
        self._last = written.step
        if copy is None and not self._ctx.rank:
            self._ctx.log(f"checkpoint of step {written.step} was gone before it was saved")
            if last:
                self._tell_last()
            return
        if copy is None and was_there:
            what = f"the part of worker {self._ctx.rank} of the checkpoint of step {written.step}"
            raise ValueError(f"{what} was removed before it was saved; keep two of them")
        if not self._ctx.rank and self._ctx.world_size > 1:
            self._ctx.announce_checkpoint(written.step, last=last)
        self._ctx.save_checkpoint(written.step, lambda folder: _move(copy, folder))

    def _all(self, layout: Layout) -> Iterator[_Written]:
        for path in self._folder.glob(layout.pattern.replace(_STEP, "*")):
            match = self._pattern.fullmatch(str(path.relative_to(self._folder)))
            if match:
                self._seen = True
                yield _Written(int(match[1]), path)

    def _whole(self, written: _Written, layout: Layout, at: float) -> bool:
        """Whether a checkpoint was whole at a time, by its sign, or as nothing of it changed."""
        if layout.complete:
            return (written.path / layout.complete).is_file()
        if layout.tracker:
            try:
                return int((self._folder / layout.tracker).read_text()) >= written.step
            except (OSError, ValueError):
                return False
        return not layout.settle or at - _changed(written.path) >= layout.settle

    def _tracker(self, layout: Layout) -> list[Path]:
        tracker = self._folder / layout.tracker
        return [tracker] if layout.tracker and tracker.is_file() else []

    def _copied(self, written: _Written, layout: Layout, *, ended: bool) -> Path | None:
        """Copy a checkpoint, and the file that tells of it; `None` where it goes meanwhile.

        Of a command that has `ended` it is moved, which takes no time.
        """
        target = self._copies / str(written.step)
        target.mkdir(parents=True, exist_ok=True)
        try:
            for path in (written.path, *self._tracker(layout)):
                into = target / path.relative_to(self._folder)
                into.parent.mkdir(parents=True, exist_ok=True)
                if ended and not path.is_symlink() and path == written.path:
                    path.rename(into)
                elif path.is_dir():
                    shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
                else:
                    shutil.copy2(path, into)
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)  # it may be tried again
            if isinstance(error, FileNotFoundError | shutil.Error):
                return None
            raise
        if not self._ctx.rank:
            (target / _WRITTEN_BY).write_text(str(self._processes))
        return target


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


def _move(copy: Path | None, folder: Path) -> None:
    """Fill the folder of a checkpoint with what was copied, which goes."""
    if copy is None:  # this worker has no part of it
        return
    for path in copy.iterdir():
        shutil.move(path, folder / path.name)
    copy.rmdir()
