"""The checkpoints that a command writes: known by their names, adopted once they are whole.

A checkpoint is copied when it is whole, since the command may remove or overwrite its own, and is
then saved beside the training. One that is gone before it was copied is told and passed over.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic, time  # noqa: TID251 - files have times of this clock

from jobs.commands.checkpoint_copies import ChangedError, Copies, Copy, hand_over
from jobs.commands.checkpoint_hints import CheckpointHints
from jobs.commands.checkpoint_layout import Layout, Written
from orchestrator.job import JobContext, KnownFailureError

_WRITTEN_BY = ".written_by"  # beside a checkpoint: how many processes the command had
_LOOK_SECONDS = 0.5  # between two looks of rank 0 at what is written
_MOMENT = 0.1  # in which a small checkpoint is copied
_END_SECONDS = 10.0  # that a copy has to end which nobody asks for any more
_REFUSED_SECONDS = 30.0  # until a checkpoint is copied again that could not be copied
_FOLLOW_SECONDS = 2.0  # between two looks of other workers at what rank 0 says
_LAST_FOLLOW_SECONDS = 0.5  # the same once the command has failed or was ended


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
        self._over = (
            False  # whether rank 0 has said that nothing follows: its word goes with the save
        )
        self._next_look = 0.0
        self._lived = 0.0  # when the command was last seen to run well
        tracker = layout.tracker if layout else ""
        notes = {} if ctx.rank else {_WRITTEN_BY: str(self._processes)}
        self._copies = Copies(folder, folder.parent / "adopted", tracker, notes)
        self._copy: Copy | None = None  # being made, or made and not yet handed over
        self._handed: Path | None = None  # a copy that is being saved
        self._signs: dict[Written, object] = {}  # of the last look
        self._restored = self._refused = -1
        self._had_parts = False  # of what this attempt has written
        folder.mkdir(parents=True)
        if layout:
            self._hints = CheckpointHints(folder, layout, ctx.log)

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
        self._last = self._restored = checkpoint.step
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
        self._sweep()
        if self._ctx.rank:
            self._follow(self._layout, time())
            return
        written = self._copy.written if self._copy else self._look(self._layout)
        copy = self._copied(written, self._layout, ended=False) if written else None
        if copy is not None:
            self._save(copy, last=False)

    def _look(self, layout: Layout) -> Written | None:
        """Return the newest that is whole, where it is time to look and nothing is being saved."""
        if monotonic() < self._next_look or self._ctx.saving:
            return None
        self._next_look = monotonic() + _LOOK_SECONDS
        newest = self._newest(layout, time())
        if newest is None and self._last == self._restored:
            self._hints.tell_meanwhile(self._signs)
        return newest

    def _sweep(self) -> None:
        """Remove what is left of a copy whose save is over, however it ended."""
        if self._handed is not None and not self._ctx.saving:
            shutil.rmtree(self._handed, ignore_errors=True)
            self._handed = None

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
            else:
                self._save_last(layout, at)
            self._ctx.finish_saving()

    def close(self) -> None:
        """Have no copy be made any more: the folder where it would be goes."""
        if self._copy is not None:
            self._copy.give_up()
            self._copy.wait(_END_SECONDS)

    def _follow_rest(self, layout: Layout, at: float, seconds: float) -> None:
        """Save what rank 0 saves last; it may run on, and say nothing more."""
        until, self._next_look = monotonic() + seconds, 0.0
        pace = _LAST_FOLLOW_SECONDS
        while not self._follow(layout, at, pace, ended=True) and monotonic() < until:
            Event().wait(_LAST_FOLLOW_SECONDS)

    def explain(self, *, failed: bool) -> None:
        """Say why no checkpoint of a command that has ended was saved, if that is so.

        Of one that has `failed` it says nothing where it has written nothing.
        """
        if self._layout is not None and not self._ctx.rank and self._last < 0:
            self._hints.tell_at_the_end(self._all(self._layout), failed=failed)

    def _adopt_last(self, layout: Layout) -> None:
        if self._ctx.rank:
            with self._ctx.busy("waiting for the last checkpoint"):
                while not self._follow(layout, math.inf, ended=True):
                    Event().wait(_FOLLOW_SECONDS)
            return
        with self._ctx.busy("saving the last checkpoint"):
            self._save_last(layout, math.inf)

    def _save_last(self, layout: Layout, at: float) -> None:
        """Save the newest of a command that has ended, and tell the others that nothing follows.

        That is one whose copy is made where the command has removed it since.
        """
        newest = self._newest(layout, at, ended=True)
        if newest is None and self._copy is not None and self._copy.whole:
            newest = self._copy.written
        copy = self._copied(newest, layout, ended=True) if newest else None
        if copy is not None:
            self._save(copy, last=True)
        else:
            self._tell_last()

    def _tell_last(self) -> None:
        """Tell the other workers that nothing more is saved.

        Word of a checkpoint goes once that is saved: this must come after it.
        """
        self._ctx.finish_saving()
        if self._ctx.world_size > 1:
            self._ctx.announce_checkpoint(max(self._last, 0), last=True)

    def _newest(self, layout: Layout, at: float, *, ended: bool = False) -> Written | None:
        """Return the newest that was whole `at` a time, and, as it runs on, a look ago."""
        new = (written for written in self._all(layout) if written.step > self._last)
        before, self._signs = self._signs, {new: layout.sign(new, self._folder) for new in new}
        whole = (
            written
            for written, sign in self._signs.items()
            if (ended or before.get(written) == sign) and layout.whole(written, self._folder, at)
        )
        return max(whole, key=lambda written: written.step, default=None)

    def _follow(
        self, layout: Layout, at: float, pace: float = _FOLLOW_SECONDS, *, ended: bool = False
    ) -> bool:
        """Save what rank 0 saves; return whether nothing follows."""
        if self._copy is not None and not (self._copy.done or ended):
            return False
        now = monotonic()
        if self._over or (now < self._next_look and self._copy is None):
            return self._over
        self._next_look = now + pace
        parts = list(self._all(layout))
        self._had_parts |= any(part.step > self._restored for part in parts)
        if self._ctx.saving:
            return False
        step, last = self._ctx.announced_checkpoint(self._last) or (-1, False)
        if step > self._last:
            mine = next((part for part in parts if part.step == step), None)
            if not self._save_part(step, mine, layout, at, ended=ended):
                return False
        self._over = last
        return last

    def _save_part(
        self, step: int, mine: Written | None, layout: Layout, at: float, *, ended: bool
    ) -> bool:
        """Save this worker's part, where it has one; return whether it was whole and is copied."""
        if mine is None and self._copy is not None and self._copy.written.step == step:
            mine = self._copy.written
        if mine is None:
            if self._had_parts:
                self._refuse(step)
                return True
            self._last = step
            self._ctx.save_checkpoint(step, lambda _: None)
            return True
        if not self._settled(mine, layout, at):
            return False
        copy = self._copied(mine, layout, ended=ended)
        if copy is None or isinstance(copy.error, ChangedError):
            return False
        self._save(copy, last=False)
        return True

    def _settled(self, part: Written, layout: Layout, at: float) -> bool:
        """Whether this worker's part is whole, where nothing but its age says so."""
        signed = layout.complete or layout.tracker or not part.path.exists()
        return bool(signed) or layout.whole(part, self._folder, at)

    def _refuse(self, step: int) -> None:
        """Have a save refused, of which rank 0 hears: the part of this worker is gone."""

        def removed(_: Path) -> None:
            what = f"the part of worker {self._ctx.rank} of the checkpoint of step {step}"
            gone = f"{what} was removed before it was saved; keep two of them"
            raise OSError(errno.EIO, gone)

        self._last = step
        self._ctx.save_checkpoint(step, removed)

    def _copied(self, written: Written, layout: Layout, *, ended: bool) -> Copy | None:
        """Return a copy, or why there is none; `None` while it is being made."""
        copy, self._copy = self._copy, None
        same = copy is not None and copy.written == written
        if copy is not None and same and (copy.whole or (copy.done and not ended)):
            return copy
        if copy is not None and (ended or not same):
            copy.give_up()
            copy.wait(_END_SECONDS)
            copy = None
        if ended:
            return self._copies.take(written)
        if copy is None:
            copy = self._copies.begin(written, lambda: layout.sign(written, self._folder))
            copy.wait(_MOMENT)
        self._copy = None if copy.done else copy
        return copy if copy.done else None

    def _save(self, copy: Copy, *, last: bool) -> None:
        """Save what was copied. What could not be copied ends no command: see `_pass_over`."""
        ctx, step = self._ctx, copy.written.step
        if copy.vanished and ctx.rank:
            self._refuse(step)
            return
        if copy.error is not None and not ctx.rank:
            self._pass_over(copy, last=last)
            return
        self._last = step
        if not ctx.rank and ctx.world_size > 1:
            ctx.announce_checkpoint(step, last=last)
        self._handed = copy.folder
        ctx.save_checkpoint(step, lambda folder: _fill(copy, folder))

    def _pass_over(self, copy: Copy, *, last: bool) -> None:
        """Go on, as rank 0, without a checkpoint that is gone, or can't be copied now."""
        step = copy.written.step
        if copy.vanished:
            self._last = step
            self._ctx.log(f"checkpoint of step {step} was gone before it was saved")
        elif not isinstance(copy.error, ChangedError):
            self._next_look = monotonic() + _REFUSED_SECONDS
            if step != self._refused:
                self._refused, self._hints.over = step, True
                again = "" if last else "; it is tried again"
                self._ctx.log(f"checkpoint of step {step} can't be copied: {copy.why}{again}")
        if last:
            self._tell_last()

    def _all(self, layout: Layout) -> list[Written]:
        parts = layout.written(self._folder)
        self._hints.seen |= bool(parts)
        return parts


def _fill(copy: Copy, folder: Path) -> None:
    """Fill the folder of a checkpoint.

    Raises:
        OSError: It could not be copied: of a worker beside rank 0, which is told by this.
    """
    if copy.error is not None:
        raise OSError(errno.EIO, f"it can't be copied: {copy.why}")
    hand_over(copy.folder, folder)
