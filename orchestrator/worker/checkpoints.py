"""The checkpoints of a stage, as one worker of an attempt sees them.

Rank 0 chooses which one the attempt goes on from, when all have verified it
(`checkpoint_verification.py`), and claims it (`fencing.py`); the others take the same. A save goes
on beside the job (`checkpoint_writer.py`), one at a time: a second one waits for the first. What
goes wrong with it is raised at the next call of the job. Only a storage that refuses is told and
passed over, `attempts.skipped_saves` times in a row: the checkpoint before is young.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from orchestrator.core import artifact_paths
from orchestrator.core.artifact import Manifest
from orchestrator.core.errors import ArtifactError, DamagedError, JobError, StorageError
from orchestrator.core.runs.checkpoint_names import CheckpointId, Claim, Token, counting, parse_id
from orchestrator.job import Checkpoint
from orchestrator.messages import LogLine, Resumed
from orchestrator.worker import acknowledgements
from orchestrator.worker.background import Background
from orchestrator.worker.checkpoint_shards import Shards
from orchestrator.worker.checkpoint_verification import Verifying
from orchestrator.worker.checkpoint_writer import Save, leaving
from orchestrator.worker.fencing import Fence
from orchestrator.worker.rank_membership import RankMembership, StuckError
from orchestrator.worker.runtime import DrainedError

POLL_SECONDS = 0.05
_ANNOUNCED, _LAST = "announced", "last"
_MARKS = frozenset({_ANNOUNCED, _LAST})


class Checkpoints:
    """The checkpoints of the stage of an attempt, seen from `member`."""

    def __init__(self, member: RankMembership) -> None:
        """Look at nothing: a job that has no checkpoints costs nothing."""
        self._member = member
        self._used = self._entered = self._claims = self._tidied = False
        self._source: Checkpoint | None = None
        self._last_step = -1
        self._saving: tuple[CheckpointId, Background] | None = None
        self._leave: tuple[str, int] | None = None
        self.stays = False  # whether the job leaves no more: it is done, but for its last words
        self._judged: CheckpointId | None = None
        self._skipped = 0
        self._verifying = Verifying(member)

    # --- going on ------------------------------------------------------------------------------

    def latest(self) -> Checkpoint | None:
        """Return the checkpoint that this attempt goes on from: always the same.

        Raises:
            StaleAttemptError: A newer attempt has claimed the checkpoints of the stage.
            ArtifactError: They can't be read.
            StorageError: Rank 0 doesn't say which one it is, and shows no sign of looking.
        """
        self._used = True
        if not self._entered:
            with self._member.busy("looking for a checkpoint"):
                self._source = self._adopted() if self._member.rank else self._chosen()
            self._entered = True
            self._last_step = self._source.step if self._source else -1
        return self._source

    def _chosen(self) -> Checkpoint | None:
        """Choose the newest that counts and verifies, and claim it."""
        member, fence = self._member, self._member.fence
        self._enter()
        for checkpoint_id in counting(
            fence.checkpoints(), fence.claims(), member.request.adjust.before
        ):
            member.go_on()
            with suppress(DamagedError):
                checkpoint = self._verified(checkpoint_id)
                fence.settle(checkpoint_id)
                self._verifying.over()
                member.runtime.outbox.say(Resumed(checkpoint_id.step))
                return checkpoint
        earlier = self._choose_earlier()
        fence.settle(None)
        self._verifying.over()
        before = member.request.adjust.before
        if before:
            text = f"no checkpoint of a step below {before} is left: the job begins anew"
            member.runtime.outbox.line(LogLine(member.rank, text))
        return earlier

    def _enter(self) -> None:
        """Claim the checkpoints; where the storage refused it before, claim them again."""
        again, self._claims = self._claims, True
        if again:
            self._member.fence.check()
            self._member.fence.show_work(0)
        else:
            self._member.fence.enter()

    def _verified(self, checkpoint_id: CheckpointId, *, continued: bool = False) -> Checkpoint:
        """Return a checkpoint of which every file is as it was, whoever has hashed it."""
        folder = self._member.request.continues if continued else ""
        if self._member.world_size == 1:
            return self._open(checkpoint_id, folder)
        self._verifying.together(checkpoint_id, continued=continued)
        return self._open(checkpoint_id, folder, mine=_none)

    def _adopted(self) -> Checkpoint | None:
        """Take what rank 0 has chosen, and verify what it proposes until then."""
        fence = self._member.fence

        def settled_claim() -> Claim | None:
            choice = fence.choice()
            if choice.claim is None and choice.proposal is not None:
                self._verifying.as_proposed(choice.proposal)
            return choice.claim

        claim: Claim = self._member.wait_for(
            settled_claim, "rank 0 has not said which checkpoint to go on from", fence.moves
        )
        if claim.source is None:
            return self._adopted_earlier()
        return self._open(claim.source, mine=_none)

    def _choose_earlier(self) -> Checkpoint | None:
        """Choose the newest of the run that this one continues, and tell the other workers."""
        member = self._member
        request, store = member.request, member.runtime.store
        if not request.continues or request.adjust.before is not None:
            return None
        fence = Fence(store, request.continues, member.token)
        for checkpoint_id in counting(fence.checkpoints(), fence.claims()):
            member.go_on()
            with suppress(DamagedError):
                checkpoint = self._verified(checkpoint_id, continued=True)
                store.mark(self._continued, str(checkpoint_id))
                member.runtime.outbox.say(Resumed(checkpoint_id.step))
                return checkpoint
        return None

    def _adopted_earlier(self) -> Checkpoint | None:
        """Take what rank 0 has chosen of the run that this one continues, if anything."""
        member = self._member
        text = member.runtime.store.marked(self._continued) if member.request.continues else None
        checkpoint_id = parse_id(text) if text else None
        return (
            self._open(checkpoint_id, member.request.continues, mine=_none)
            if checkpoint_id
            else None
        )

    @property
    def _continued(self) -> str:
        request = self._member.request
        return artifact_paths.continued(request.run, request.stage, request.attempt)

    def _name(self, checkpoint_id: CheckpointId, folder: str) -> str:
        return f"{folder}/{checkpoint_id}" if folder else self._member.name(checkpoint_id)

    def _open(
        self,
        checkpoint_id: CheckpointId,
        folder: str = "",
        mine: Callable[[str], bool] | None = None,
    ) -> Checkpoint:
        """Return a checkpoint; of its files those that are `mine` are hashed, else all.

        Where none is, and this worker has verified its part of it just now, nothing is asked.
        """
        name, verified = self._name(checkpoint_id, folder), self._verifying.verified
        if mine is _none and verified and verified[0] == name:
            _, manifest = verified
        else:
            _, manifest = self._member.runtime.store.load(name, mine=mine)
        if _says(manifest) != checkpoint_id:
            raise DamagedError(f"artifact {name!r} is another one by its manifest; remove it")
        parts = Shards(self._member, name, manifest)
        return Checkpoint(step=checkpoint_id.step, path=parts.brought(0), shards=parts)

    # --- saving --------------------------------------------------------------------------------

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Begin to save this worker's part of the checkpoint of `step`.

        Raises:
            JobError: The steps don't grow.
            AttemptCancelledError: The attempt was given up.
            Exception: What went wrong with the save before.
        """
        member = self._member
        if step <= self._last_step:
            raise JobError(
                f"save_checkpoint({step!r}): steps grow; take {self._last_step + 1} or more"
            )
        began = member.runtime.clock.monotonic()
        self.finish()
        self.check()
        self._used, self._last_step = True, step
        checkpoint_id = CheckpointId(step, member.token)
        stall = member.runtime.clock.monotonic() - began
        save = Save(
            member=replace(member, saving=True), checkpoint=checkpoint_id, write=write, stall=stall
        )
        background = Background(lambda: self._save(save), f"{member.request.key} saves {step}")
        self._saving = (checkpoint_id, background)

    def _save(self, save: Save) -> None:
        if self._member.rank:
            save.run()
            return
        if not self._entered:  # a job that didn't ask begins anew
            self._enter()
            self._member.fence.settle(None)
            self._entered = True
        if not self._tidied:  # what a crash left may take the room that this one needs
            self._tidied = True
            save.tidy()
        save.run()
        with suppress(StorageError):  # it is asked again after the next save
            self._ask_to_leave(save)

    def _ask_to_leave(self, save: Save) -> None:
        reason = leaving(self._member)
        if reason is not None:
            self._leave = (reason, save.checkpoint.step)

    def saved(self, step: int) -> Checkpoint:
        """Return the checkpoint of `step`, the last that was saved, read back from the store.

        Raises:
            JobError: It is not the last one.
            StorageError: The storage refused it, or it does not appear.
            DamagedError: What was stored is not what was saved.
        """
        if self._saving is None or self._saving[0].step != step:
            message = f"saved_checkpoint({step!r}): the last save of this attempt is of "
            raise JobError(
                f"{message}step {self._last_step}" if self._saving else f"{message}none"
            )
        self.finish()
        checkpoint_id, background = self._saving
        if background.error is not None:
            raise background.error
        with self._member.busy("reading a checkpoint"):
            if self._member.rank == 0:
                return self._open(checkpoint_id, mine=self._verifying.mine)
            return self._member.wait_for(
                lambda: self._sealed(checkpoint_id),
                f"the checkpoint of step {step} was not sealed",
                lambda: self._member.runtime.store.weight(self._member.name(checkpoint_id)),
            )

    def _sealed(self, checkpoint_id: CheckpointId) -> Checkpoint | None:
        with suppress(DamagedError):
            return self._open(checkpoint_id, mine=self._verifying.mine)
        acknowledgements.check(self._member, checkpoint_id, 0)
        return None

    def announce(self, step: int, *, last: bool) -> None:
        """Tell the other workers to save the checkpoint of `step`, and whether it is the last."""
        announced = CheckpointId(step, self._member.token)
        mark = f"{announced}-{_LAST if last else _ANNOUNCED}"
        self._member.runtime.store.mark(f"{self._member.acknowledged}/{mark}", "")

    @property
    def saving(self) -> bool:
        """Whether the last save is still under way."""
        return self._saving is not None and not self._saving[1].done

    def announced(self, after: int) -> tuple[int, bool] | None:
        """Return what rank 0 has announced next `after` a step, and whether it is the last."""
        names = self._member.runtime.store.names(self._member.acknowledged)
        parted = (name.rpartition("-") for name in names)
        marks = [(parse_id(text), of == _LAST) for text, _, of in parted if of in _MARKS]
        ours = ((mark, last) for mark, last in marks if mark and mark.token == self._member.token)
        return min(((m.step, last) for m, last in ours if last or m.step > after), default=None)

    @property
    def fence(self) -> Fence | None:
        """What a newer attempt may have claimed; `None` as long as the job has no checkpoints."""
        return self._member.fence if self._used else None

    # --- what became of it ---------------------------------------------------------------------

    def check(self) -> None:
        """Raise what went wrong with a save, or that the job shall leave after it.

        Raises:
            DrainedError: The pool is being emptied, and a checkpoint was made since.
            Exception: What went wrong with a save.
        """
        if self._saving is not None and self._saving[1].done:
            self._judge(*self._saving)
        if self._leave and not (self.stays or self._member.runtime.saves_last.is_set()):
            reason, step = self._leave
            raise DrainedError(f"{reason}; left after the checkpoint of step {step}", step)

    def finish(self) -> None:
        """Wait until the last save is done.

        Raises:
            AttemptCancelledError: The attempt was given up.
            Exception: What went wrong with it.
        """
        if self._saving is not None:
            with self._member.busy("saving a checkpoint"):
                self._outlast(*self._saving)
            self._judge(*self._saving)
        self._member.go_on()

    def _outlast(self, checkpoint_id: CheckpointId, save: Background) -> None:
        """Wait for a save that moves on, and for the last of a job that ends as long as it may."""
        request, runtime = self._member.request, self._member.runtime
        what = f"the checkpoint of step {checkpoint_id.step} is not saved"
        if runtime.saves_last.is_set():
            seconds = request.kill_after if runtime.stop.is_set() else request.waits.last_save
            if not save.wait(seconds):
                raise StuckError(f"{what} after {seconds:g} s")
        elif not save.outlast(self._member.go_on, self._member.patience):
            seconds = self._member.patience
            raise StuckError(
                f"{what}, and nothing has moved for {seconds:.0f} s; check its storage"
            )

    def _judge(self, checkpoint_id: CheckpointId, save: Background) -> None:
        """Raise what went wrong with a save, but for a storage that may refuse a few in a row."""
        if not isinstance(save.error, StorageError) or isinstance(save.error, StuckError):
            self._skipped = 0
            save.check()
            return
        if self._judged != checkpoint_id:
            self._judged = checkpoint_id
            self._skipped += 1
            if self._skipped <= self._most_skipped:
                self._tell_skipped(checkpoint_id, save.error)
        if self._skipped > self._most_skipped:
            save.check()

    @property
    def _most_skipped(self) -> int:
        return self._member.request.waits.skipped_saves

    def _tell_skipped(self, checkpoint_id: CheckpointId, error: StorageError) -> None:
        runtime, left = self._member.runtime, self._most_skipped - self._skipped
        text = f"checkpoint of step {checkpoint_id.step} was not saved: {error}; the job goes on"
        runtime.outbox.line(LogLine(self._member.rank, f"{text}, {left} more in a row may fail"))
        if self._member.rank == 0:
            figures = {"checkpoint/skipped": float(self._skipped)}
            runtime.outbox.points(checkpoint_id.step, figures, runtime.clock.now())

    def settle(self) -> None:
        """Give the last save of a failed job a little time: it lessens the work that is lost.

        Others than rank 0 wait for the whole checkpoint: rank 0 may be ended because of them.
        """
        if self._saving is None or self._member.runtime.stop.is_set():
            return
        checkpoint_id, background = self._saving
        seconds = self._member.request.waits.last_save
        done = background.wait(seconds)
        if not done or background.error is not None or self._member.rank == 0:
            return
        clock = self._member.runtime.clock
        deadline = clock.monotonic() + seconds
        while not self._appeared(checkpoint_id) and clock.monotonic() < deadline:
            clock.sleep(POLL_SECONDS)

    def let_finish(self, seconds: float) -> None:
        """Wait for the save that goes on, though its job shall end: what it saves was paid for."""
        if self._saving is not None:
            self._saving[1].wait(seconds)

    def _appeared(self, checkpoint_id: CheckpointId) -> bool:
        """Whether a checkpoint is there, as far as this can be known."""
        try:
            self._member.runtime.store.manifest(self._member.name(checkpoint_id))
        except DamagedError:
            return False
        except ArtifactError:
            return True  # nobody can say
        return True


def _none(_path: str) -> bool:
    """Have no file hashed: that was done."""
    return False


def _says(manifest: Manifest) -> CheckpointId | None:
    """Return which checkpoint this is by its own manifest."""
    names = [manifest.meta.get(key, "") for key in ("step", "epoch", "attempt")]
    if not all(text.isdecimal() for text in names):
        return None
    step, epoch, attempt = map(int, names)
    return CheckpointId(step, Token(epoch, attempt))
